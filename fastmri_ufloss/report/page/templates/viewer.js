// The list of cases, in the order of their choice or by the score of a method.

class CaseList {
  constructor(onOpen) {
    Object.assign(this, { onOpen, current: 0, metric: "", method: report.methods.at(-1), worstFirst: true });
    const draw = () => this.draw();
    this.metrics = selectField("Order by", this, "metric", draw, { id: "case-metric" });
    this.methods = selectField("of", this, "method", draw, { id: "case-method" });
    this.methods.show(report.methods);
    this.worst = toggleButton("worst first", this, "worstFirst", draw, { id: "case-worstFirst" });
    this.list = element("ol", { class: "cases", "aria-label": "Cases" });
    this.node = div("case-list", div("group", this.metrics.node, this.methods.node, this.worst.node), this.list);
    onChoice(draw);
  }

  draw() {
    const metrics = shownMetrics();
    const metric = metrics.find(({ name }) => name === this.metric);
    this.metric = metric?.name ?? "";
    this.metrics.show([["", "order of choice"], ...metrics.map((each) => [each.name, shortName(each) + arrow(each)])]);
    this.methods.node.hidden = this.worst.node.hidden = !metric;
    this.listed = report.cases.map((entry, index) => ({ ...entry, index })).filter(isOf(chosen.contrast));
    if (metric) {
      const value = (entry) => entry.scores[methodIndex.get(this.method)][metric.name] ?? null;
      const sign = (metric.larger_is_better === false ? -1 : 1) * (this.worstFirst ? 1 : -1);
      const key = (entry) => (value(entry) === null ? Infinity : sign * value(entry));
      for (const entry of this.listed) entry.why = `${metric.name} of ${this.method}: ${format(value(entry))}`;
      this.listed.sort((a, b) => key(a) - key(b));
    }
    const none = element("li", { class: "none" }, "no cases of this contrast");
    this.list.replaceChildren(...(this.listed.length ? this.listed.map((entry) => this.item(entry)) : [none]));
    this.mark(this.current);
  }

  item({ index, volume, slice, contrast, why, thumbnail }) {
    const place = `slice ${slice}${report.contrasts.length > 1 ? ` · ${contrast}` : ""}`;
    const text = span("text", span("name", volume), span("place", place), span("why", why));
    const content = [element("img", { src: thumbnail, alt: "" }), text];
    return element("li", {}, button(content, () => this.onOpen(index), { class: "case", "data-case": index }));
  }

  // Marks the case that is shown.
  mark(index) {
    this.current = index;
    for (const entry of this.list.querySelectorAll("button")) {
      entry.setAttribute("aria-current", Number(entry.dataset.case) === index);
    }
  }

  // Opens the case that is so many places further in the list, round and round.
  turn(by) {
    const place = this.listed.findIndex((entry) => entry.index === this.current);
    const next = this.listed[(place + by + this.listed.length) % this.listed.length];
    if (next) this.onOpen(next.index);
  }
}

// Two images in one place, by turns: what moves is what differs.

class Flicker {
  constructor() {
    this.shown = new ImageCanvas("", "flicker");
    this.pair = [0, report.references.length + report.methods.length - 1]; // the reference and the last method
    Object.assign(this, { side: 0, perSecond: 2, playing: false, timer: null });
    this.label = div("flicker-label");
    this.selects = ["A", "B"].map((text, side) => selectField(text, this.pair, side, () => this.display(side)));
    const run = () => this.run(this.playing);
    this.play = toggleButton("Play", this, "playing", run);
    const range = { min: 0.5, max: 5, step: 0.5, text: (value) => `${value} a second` };
    const speed = sliderField("Speed", this, "perSecond", range, run);
    const swap = button("Swap (space)", () => this.swap());
    const controls = div("row", this.selects.map((select) => select.node), this.play.node, swap, speed.node);
    this.node = div("flicker", controls, this.label, this.shown.canvas);
  }

  setCase(images) {
    this.images = images;
    this.all = [...images.references, ...images.methods];
    for (const select of this.selects) select.show(this.all.map(({ name }, index) => [index, name]));
    this.display(this.side);
  }

  display(side) {
    this.side = side;
    const entry = this.all[this.pair[side]];
    this.label.dataset.side = "AB"[side];
    this.label.textContent = `${"AB"[side]}: ${entry.name}${entry.image === null ? " (no image)" : ""}`;
    this.shown.canvas.setAttribute("aria-label", `Flicker, ${this.label.textContent}`);
    this.shown.setImage(entry, { truth: this.images.truth });
    if (view.flicker) this.shown.draw(this.images);
  }

  // By hand: the automatic change stops.
  swap() {
    this.run(false);
    this.display(1 - this.side);
  }

  run(playing) {
    this.playing = playing;
    clearInterval(this.timer);
    if (playing) this.timer = setInterval(() => this.display(1 - this.side), 1000 / this.perSecond);
    this.play.show();
    this.play.node.textContent = playing ? "Pause" : "Play";
  }
}

// An image of a case, with what belongs to it.

class Panel {
  constructor(name) {
    this.name = name;
    this.main = new ImageCanvas(name, "image");
    this.error = new ImageCanvas(`Error of ${name}`, "error");
    this.readout = span("readout");
    this.scores = element("dl", { class: "scores" });
    this.missing = element("p", { class: "missing", hidden: true }, "no image");
    const dot = methodIndex.has(name) ? colorDot(name) : null; // none of a reference
    const title = element("figcaption", {}, dot, nameText(name), this.readout);
    const frame = div("frame", this.main.canvas, this.missing);
    this.node = element("figure", { class: "panel" }, title, frame, this.error.canvas, this.scores);
  }

  setCase(entry, reference, { truth }) {
    this.missing.hidden = entry.image !== null;
    this.main.setImage(entry, { truth });
    this.error.setImage(reference.image === null ? reference : entry, { reference: reference.image });
  }

  draw(images) {
    this.main.draw(images);
    this.error.draw(images);
    const { image } = this.main;
    const value = view.cursor && image ? image.values[view.cursor.row * image.cols + view.cursor.col] : null;
    this.readout.textContent = value === null ? "" : (value / images.top).toFixed(3);
  }
}

// The images of a case side by side, or two of them by turns.

const HELP = Object.entries({
  "wheel, pinch, + and −": "zoom all images", "drag, arrows": "move", "double click, 0": "reset the zoom",
  "right drag or shift drag": "window: right is softer, up is brighter", "[ and ], b and d": "narrower and wider, brighter and darker",
  "n and p": "next and previous case", "space": "swap the two images of the flicker",
});

// Keys while the viewer has the focus; false says that the key is left to the browser.
const move = (dx, dy) => () => view.zoom > 1 && moveBy(dx, dy);
const KEYS = {
  ArrowLeft: move(-0.1, 0), ArrowRight: move(0.1, 0), ArrowUp: move(0, -0.1), ArrowDown: move(0, 0.1),
  "+": () => zoomAround(1.25), "=": () => zoomAround(1.25), "-": () => zoomAround(0.8), 0: resetZoom,
  "[": () => setWindow(view.level, view.width * 0.9), "]": () => setWindow(view.level, view.width / 0.9),
  b: () => setWindow(view.level - 0.02, view.width), d: () => setWindow(view.level + 0.02, view.width),
  n: () => theViewer.list.turn(1), p: () => theViewer.list.turn(-1), " ": () => view.flicker && theViewer.flicker.swap(),
};

class Viewer {
  constructor() {
    Object.assign(this, { panels: [], images: null, index: null, frame: null });
    this.list = new CaseList((index) => this.open(index));
    this.grid = div("panels");
    this.flicker = new Flicker();
    this.heading = element("div", { class: "case-heading", "aria-live": "polite" });
    const attributes = { class: "stage", tabindex: "0", role: "group", "aria-label": "Image viewer", "aria-describedby": "keys" };
    this.stage = element("div", { ...attributes, on: { keydown: (event) => this.key(event) } },
      this.heading, this.toolbar(), this.grid, this.flicker.node, fold("Mouse and keys", pairList(HELP, { id: "keys" })));
    this.node = div("viewer", this.list.node, this.stage);
    new ResizeObserver(() => this.update()).observe(this.grid);
    onChoice(() => { if (this.images) this.showImages(); });
  }

  toolbar() {
    const percent = (value) => `${Math.round(100 * value)}%`;
    const update = () => this.update();
    const windowed = () => setWindow(view.level, view.width);
    const slider = (label, key, range, changed) => sliderField(label, view, key, { id: key, ...range }, changed);
    const level = slider("Level", "level", { min: 0, max: 1.5, step: 0.005, text: percent }, windowed);
    const width = slider("Width", "width", { min: 0.01, max: 2, step: 0.005, text: percent }, windowed);
    const gain = slider("Error gain", "gain", { min: 1, max: 30, step: 1, text: (value) => `×${value}` }, update);
    const size = slider("Size", "size", { min: 130, max: 640, step: 10, text: (value) => `${value} px` }, update);
    this.sliders = [level, width];
    const toggle = (text, key, name = "") =>
      toggleButton(text, view, key, update, { id: `toggle-${key}`, class: `toggle ${name}` }).node;
    this.contours = toggle(["Contours ", span("true", "true"), span("predicted", "predicted")], "contours");
    this.errorTop = element("output");
    this.zoomText = element("output", { class: "zoom", "aria-label": "Zoom" });
    const zoom = (text, label, factor) => button(text, () => zoomAround(factor), { "aria-label": label });
    return element("div", { class: "toolbar", role: "toolbar", "aria-label": "Image controls" },
      div("group", toggle("Flicker", "flicker"), toggle("Errors", "errors", "of-panels"), this.contours, toggle("Smooth", "smooth")),
      div("group", zoom("−", "Zoom out", 0.8), this.zoomText, zoom("+", "Zoom in", 1.25),
        button("Reset zoom", resetZoom, { id: "reset-zoom" })),
      div("group", level.node, width.node, button("Reset window", () => this.resetWindow(), { id: "reset-window" })),
      div("group of-panels", gain.node, "0", div("ramp"), this.errorTop, size.node));
  }

  async open(index) {
    this.index = index;
    this.list.mark(index);
    this.stage.classList.add("loading");
    const images = await imagesOfCase(index);
    if (this.index !== index) return; // another case was opened meanwhile
    this.images = images;
    this.stage.classList.remove("loading");
    this.showImages();
  }

  showImages() {
    const { volume, slice, why } = report.cases[this.index];
    const { references, methods, truth } = this.images;
    const turn = (text, label, by) => button(text, () => this.list.turn(by), { "aria-label": label });
    this.heading.replaceChildren(turn("‹", "Previous case", -1), turn("›", "Next case", 1),
      element("div", {}, element("h3", {}, `${volume}, slice ${slice}`), element("p", {}, why)));
    const reference = references.find((entry) => entry.name === chosen.reference);
    if (this.panels[0]?.name !== reference.name) {
      this.panels = [reference.name, ...report.methods].map((name) => new Panel(name));
      this.grid.replaceChildren(...this.panels.map((panel) => panel.node));
    }
    [reference, ...methods].forEach((entry, i) => this.panels[i].setCase(entry, reference, this.images));
    this.showScores();
    this.flicker.setCase(this.images);
    this.contours.hidden = !truth && ![...references, ...methods].some((entry) => entry.outline);
    if (view.ownWindow) this.update();
    else this.resetWindow();
    this.stage.dataset.shown = String(this.index);
  }

  showScores() {
    const { scores } = report.cases[this.index];
    for (const panel of this.panels) panel.scores.replaceChildren();
    for (const metric of shownMetrics()) {
      const values = scores.map((row) => row[metric.name]);
      if (values.every(missing)) continue;
      const best = bestOf(values, metric);
      values.forEach((value, m) => this.panels[m + 1].scores.append(
        element("dt", { title: metric.explanation }, shortName(metric)),
        element("dd", { class: best.has(m) ? "best" : null }, format(value))));
    }
  }

  resetWindow() {
    const width = this.images.white / this.images.top;
    change({ level: width / 2, width, ownWindow: false });
  }

  // Shows the view: controls and places at once, images at the next frame.
  update() {
    if (!this.images) return;
    if (!view.flicker) this.flicker.run(false);
    const states = { flickering: view.flicker, zoomed: view.zoom > 1, "no-errors": !view.errors };
    for (const [name, isOn] of Object.entries(states)) this.stage.classList.toggle(name, isOn);
    this.grid.hidden = view.flicker;
    this.grid.style.setProperty("--size", `${view.size}px`);
    this.flicker.node.hidden = !view.flicker;
    for (const slider of this.sliders) slider.show();
    this.zoomText.textContent = `${view.zoom.toFixed(1)}×`;
    const percent = ((100 * this.images.white) / this.images.top / view.gain).toPrecision(2);
    this.errorTop.textContent = `${percent}% of the reference's maximum`;
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    for (const shown of view.flicker ? [this.flicker.shown] : this.panels) shown.draw(this.images);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    if (event.key === " " && event.target.matches("button, summary")) return;
    const action = KEYS[event.key];
    if (action && action() !== false) event.preventDefault();
  }
}
