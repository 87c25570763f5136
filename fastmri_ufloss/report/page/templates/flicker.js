// Two images in one place, by turns: what moves is what differs.

class Flicker {
  constructor() {
    this.shown = new ImageCanvas("", "flicker");
    this.pair = [0, report.references.length + report.methods.length - 1]; // the reference and the last method
    this.side = 0;
    this.perSecond = 2;
    this.timer = null;
    this.label = element("div", { class: "flicker-label" });
    this.selects = element("span", { class: "row" });
    this.play = toggleButton("Play", false, (on) => this.run(on));
    const swap = element("button", { type: "button", on: { click: () => this.swap() } }, "Swap (space)");
    const speed = sliderField("Speed", { min: 0.5, max: 5, step: 0.5, value: this.perSecond, text: (value) => `${value} a second` },
      (value) => { this.perSecond = value; if (this.timer !== null) this.run(true); });
    this.node = element("div", { class: "flicker", hidden: true },
      element("div", { class: "row" }, this.selects, this.play.button, swap, speed.field), this.label, this.shown.canvas);
    addGestures(this.shown);
  }

  // all: {name, image, outline} of references and methods.
  setCase(all, images) {
    Object.assign(this, { all, images });
    const options = all.map((one, index) => [String(index), one.name]);
    this.pair = this.pair.map((index) => Math.min(index, all.length - 1));
    const field = (text, side) => selectField(text, options, String(this.pair[side]), (index) => { this.pair[side] = Number(index); this.display(side); });
    this.selects.replaceChildren(field("A", 0), field("B", 1));
    this.display(this.side);
  }

  display(side) {
    this.side = side;
    const one = this.all[this.pair[side]];
    const name = `${"AB"[side]}: ${one.name}${one.image === null ? " (no image)" : ""}`;
    this.label.textContent = name;
    this.label.dataset.side = "AB"[side];
    this.shown.setImage(one.image, { outlines: outlinesOf(one, this.images.truth), label: `Flicker, ${name}` });
    if (this.node.hidden) return;
    this.shown.paint(view, this.images);
    this.shown.draw(view);
  }

  // By hand: the automatic change stops.
  swap() {
    this.run(false);
    this.display(1 - this.side);
  }

  run(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.display(1 - this.side), 1000 / this.perSecond) : null;
    this.play.set(on);
    this.play.button.textContent = on ? "Pause" : "Play";
  }
}
