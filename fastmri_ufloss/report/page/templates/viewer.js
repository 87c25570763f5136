// The list of cases, in the order of their choice or by the score of a method.

class CaseList {
  constructor(onOpen) {
    Object.assign(this, { onOpen, current: 0, metric: "", method: report.methods[report.methods.length - 1], worstFirst: true });
    this.list = element("ol", { class: "cases", "aria-label": "Cases" });
    this.orders = div("orders");
    this.node = div("case-list", this.orders, this.list);
    onChoice(() => this.draw());
  }

  value(entry) {
    return this.metric ? entry.scores[methodIndex.get(this.method)][metricNamed.get(this.metric).index] : null;
  }

  draw() {
    const metrics = shownMetrics();
    if (!metrics.some((metric) => metric.name === this.metric)) this.metric = "";
    const change = (key) => (value) => { this[key] = value; this.draw(); this.orders.querySelector(`#case-${key}`)?.focus(); };
    const options = [["", "order of choice"], ...metrics.map((metric) => [metric.name, shortName(metric) + arrow(metric)])];
    this.orders.replaceChildren(selectField("Order by", options, this.metric, change("metric"), { id: "case-metric" }));
    this.listed = report.cases.map((entry, index) => ({ ...entry, index })).filter(inContrast);
    if (this.metric) {
      this.orders.append(selectField("of", report.methods, this.method, change("method"), { id: "case-method" }),
        toggleButton("worst first", this.worstFirst, change("worstFirst"), { id: "case-worstFirst" }).button);
      const sign = (metricNamed.get(this.metric).larger_is_better === false ? -1 : 1) * (this.worstFirst ? 1 : -1);
      const key = (entry) => (this.value(entry) === null ? Infinity : sign * this.value(entry));
      this.listed.sort((a, b) => (key(a) === key(b) ? a.index - b.index : key(a) - key(b)));
    }
    const none = element("li", { class: "none" }, "no cases of this contrast");
    this.list.replaceChildren(...(this.listed.length ? this.listed.map((entry) => element("li", {}, this.entry(entry))) : [none]));
    this.mark(this.current);
  }

  entry(entry) {
    const part = (name, text) => element("span", { class: name }, text);
    const why = this.metric ? `${this.metric} of ${this.method}: ${format(this.value(entry), metricNamed.get(this.metric))}` : entry.why;
    const place = `slice ${entry.slice}${report.contrasts.length > 1 ? ` · ${entry.contrast}` : ""}`;
    const content = [element("img", { src: entry.thumbnail, alt: "" }), part("text", [part("name", entry.volume), part("place", place), part("why", why)])];
    return button(content, () => this.onOpen(entry.index), { class: "case", "data-case": entry.index });
  }

  // Marks the case that is shown.
  mark(index) {
    this.current = index;
    for (const entry of this.list.querySelectorAll("button")) {
      if (Number(entry.dataset.case) === index) entry.setAttribute("aria-current", "true");
      else entry.removeAttribute("aria-current");
    }
  }

  // The case that is so many places further in the list, round and round.
  neighbor(by) {
    if (!this.listed.length) return this.current;
    const place = this.listed.findIndex((entry) => entry.index === this.current);
    return this.listed[(place + by + this.listed.length) % this.listed.length].index;
  }
}

// Two images in one place, by turns: what moves is what differs.

class Flicker {
  constructor() {
    this.shown = new ImageCanvas("", "flicker");
    this.pair = [0, report.references.length + report.methods.length - 1]; // the reference and the last method
    Object.assign(this, { side: 0, perSecond: 2, timer: null });
    this.label = div("flicker-label");
    this.selects = element("span", { class: "row" });
    this.play = toggleButton("Play", false, (on) => this.run(on));
    const speed = sliderField("Speed", { min: 0.5, max: 5, step: 0.5, value: this.perSecond, text: (value) => `${value} a second` },
      (value) => { this.perSecond = value; if (this.timer !== null) this.run(true); });
    this.node = element("div", { class: "flicker", hidden: true },
      div("row", this.selects, this.play.button, button("Swap (space)", () => this.swap()), speed.field), this.label, this.shown.canvas);
  }

  setCase(images) {
    this.all = [...images.references, ...images.methods];
    this.images = images;
    const options = this.all.map(({ name }, index) => [String(index), name]);
    const field = (text, side) => selectField(text, options, String(this.pair[side]), (index) => { this.pair[side] = Number(index); this.display(side); });
    this.selects.replaceChildren(field("A", 0), field("B", 1));
    this.display(this.side);
  }

  display(side) {
    this.side = side;
    const entry = this.all[this.pair[side]];
    const name = `${"AB"[side]}: ${entry.name}${entry.image === null ? " (no image)" : ""}`;
    this.label.textContent = name;
    this.label.dataset.side = "AB"[side];
    this.shown.setImage(entry, { truth: this.images.truth, label: `Flicker, ${name}` });
    if (this.node.hidden) return;
    this.shown.paint(this.images);
    this.shown.draw();
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

// The images of a case side by side, or two of them by turns, with what belongs to all of them.

class Panel {
  constructor(name, method) {
    this.name = name;
    this.main = new ImageCanvas(name, "image");
    this.error = method === null ? null : new ImageCanvas(`Error of ${name}`, "error");
    this.canvases = this.error ? [this.main, this.error] : [this.main];
    this.readout = element("span", { class: "readout" }, "\u00a0");
    this.scores = element("dl", { class: "scores" });
    this.missing = element("p", { class: "missing", hidden: true }, "no image");
    this.barText = element("span");
    this.below = this.error ? this.error.canvas : div("color-bar", element("div", { class: "ramp", "aria-hidden": "true" }), this.barText);
    this.below.classList.add("error-row");
    const title = element("figcaption", {}, method === null ? null : colorDot(method), nameText(name), this.readout);
    this.node = element("figure", { class: "panel", "data-name": name }, title, div("frame", this.main.canvas, this.missing), this.below, this.scores);
  }

  setCase(entry, reference, { truth }) {
    this.missing.hidden = entry.image !== null;
    this.main.setImage(entry, { truth });
    if (this.error) this.error.setImage(reference.image === null ? reference : entry, { reference: reference.image });
    else if (entry.image) this.below.style.aspectRatio = `${entry.image.cols} / ${entry.image.rows}`;
  }

  // The value below the pointer.
  read({ top }) {
    const { image } = this.main;
    const value = view.cursor && image ? image.values[view.cursor.row * image.cols + view.cursor.col] : null;
    this.readout.textContent = value === null ? "\u00a0" : (value / top).toFixed(3);
  }
}

const HELP = Object.entries({
  "wheel, pinch, + and −": "zoom all images", "drag, arrows": "move", "double click, 0": "reset the zoom",
  "right drag or shift drag": "window: right is softer, up is brighter", "[ and ], b and d": "narrower and wider, brighter and darker",
  "n and p": "next and previous case", "space": "swap the two images of the flicker",
});

class Viewer {
  constructor() {
    Object.assign(this, { panels: [], images: null, index: null, pending: { paint: false, draw: false } });
    this.list = new CaseList((index) => this.open(index));
    this.grid = div("panels");
    this.flicker = new Flicker();
    this.heading = element("div", { class: "case-heading", "aria-live": "polite" });
    this.stage = element("div", {
      class: "stage", tabindex: "0", role: "group", "aria-label": "Image viewer. Keys: plus and minus zoom, arrows move, 0 resets, brackets change the window, n and p change the case, space swaps the flicker",
      on: { keydown: (event) => this.key(event) },
    }, this.heading, this.toolbar(), this.grid, this.flicker.node, explained("Mouse and keys", HELP, { class: "help" }));
    this.node = div("viewer", this.list.node, this.stage);
    new ResizeObserver(() => this.schedule(false)).observe(this.grid);
    onChoice(() => { if (this.images) this.showImages(); });
  }

  toolbar() {
    const percent = (value) => `${Math.round(100 * value)}%`;
    const toggle = (text, key, after, name = "") => toggleButton(text, view[key], (on) => { view[key] = on; after(); }, { id: `toggle-${key}`, class: `toggle ${name}` }).button;
    this.level = sliderField("Level", { id: "level", min: 0, max: 1.5, step: 0.005, value: view.level, text: percent }, (level) => setWindow(level, view.width));
    this.width = sliderField("Width", { id: "width", min: 0.01, max: 2, step: 0.005, value: view.width, text: percent }, (width) => setWindow(view.level, width));
    const gain = sliderField("Error gain", { id: "gain", min: 1, max: 30, step: 1, value: view.gain, text: (value) => `×${value}` }, (value) => { view.gain = value; this.showExtras(); });
    const size = sliderField("Size", { id: "size", min: 130, max: 640, step: 10, value: 230, text: (value) => `${value} px` }, (value) => this.grid.style.setProperty("--size", `${value}px`));
    this.mode = toggleButton("Flicker", false, (on) => this.setFlicker(on), { id: "toggle-flicker" });
    this.contours = toggle("Contours", "contours", () => this.showExtras());
    this.contourLegend = element("span", { class: "contour-legend" }, element("span", { class: "true" }, "true"), element("span", { class: "predicted" }, "predicted"));
    this.zoomText = element("output", { class: "zoom", "aria-label": "Zoom" });
    return element("div", { class: "toolbar", role: "toolbar", "aria-label": "Image controls" },
      div("group", this.mode.button, toggle("Errors", "errors", () => this.showExtras(), "of-panels"), this.contours, this.contourLegend, toggle("Smooth", "smooth", () => this.schedule(false))),
      div("group", button("−", () => zoomAround(0.8, 0, 0), { "aria-label": "Zoom out" }), this.zoomText, button("+", () => zoomAround(1.25, 0, 0), { "aria-label": "Zoom in" }), button("Reset zoom", resetZoom, { id: "reset-zoom" })),
      div("group", this.level.field, this.width.field, button("Reset window", () => this.resetWindow(), { id: "reset-window" })),
      div("group of-panels", gain.field, size.field));
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
    const turn = (text, label, by) => button(text, () => this.open(this.list.neighbor(by)), { "aria-label": label });
    this.heading.replaceChildren(turn("‹", "Previous case", -1), turn("›", "Next case", 1),
      element("div", {}, element("h3", {}, `${volume}, slice ${slice}`), element("p", {}, why)));
    if (!view.ownWindow) this.resetWindow();
    const reference = references.find((entry) => entry.name === chosen.reference);
    if (this.panels[0]?.name !== reference.name) {
      this.panels = [reference.name, ...report.methods].map((name, i) => new Panel(name, i ? name : null));
      this.grid.replaceChildren(...this.panels.map((panel) => panel.node));
    }
    [reference, ...methods].forEach((entry, i) => this.panels[i].setCase(entry, reference, this.images));
    this.showScores();
    this.flicker.setCase(this.images);
    this.contours.hidden = !truth && ![...references, ...methods].some((entry) => entry.outline);
    this.showExtras();
    this.stage.dataset.shown = String(this.index);
  }

  showScores() {
    const { scores } = report.cases[this.index];
    const metrics = shownMetrics().filter((metric) => scores.some((row) => row[metric.index] !== null));
    const best = metrics.map((metric) => bestOf(scores.map((row) => row[metric.index]), metric));
    this.panels.slice(1).forEach((panel, m) => panel.scores.replaceChildren(...metrics.flatMap((metric, k) => [
      element("dt", { title: metric.explanation }, shortName(metric)),
      element("dd", { class: best[k].has(m) ? "best" : null }, format(scores[m][metric.index], metric)),
    ])));
  }

  // Errors with their scale, and the legend of the contours.
  showExtras() {
    if (!this.images) return;
    this.grid.classList.toggle("no-errors", !view.errors);
    const percent = (100 * this.images.white) / this.images.top / view.gain;
    this.panels[0].barText.textContent = `|error|, 0 to ${percent.toPrecision(2)}% of the reference's maximum`;
    this.contourLegend.hidden = !view.contours || this.contours.hidden;
    this.schedule(true);
  }

  resetWindow() {
    const width = this.images.white / this.images.top;
    Object.assign(view, { level: width / 2, width, ownWindow: false });
    this.syncControls();
    this.schedule(true);
  }

  syncControls() {
    this.level.set(view.level);
    this.width.set(view.width);
  }

  setFlicker(on) {
    this.mode.set(on);
    this.stage.classList.toggle("flickering", on);
    this.grid.hidden = on;
    this.flicker.node.hidden = !on;
    if (!on) this.flicker.run(false);
    this.schedule(true);
  }

  // Draws at the next frame: all colors anew, or only the place and size.
  schedule(paint) {
    this.pending.paint ||= paint;
    if (this.pending.draw || !this.images) return;
    this.pending.draw = true;
    requestAnimationFrame(() => this.render());
  }

  render() {
    const { paint } = this.pending;
    this.pending = { paint: false, draw: false };
    const canvases = this.panels.flatMap((panel) => panel.canvases).filter((shown) => view.errors || !shown.reference);
    for (const shown of this.grid.hidden ? [this.flicker.shown] : canvases) {
      if (paint) shown.paint(this.images);
      shown.draw();
    }
    for (const panel of this.panels) panel.read(this.images);
    this.zoomText.textContent = `${view.zoom.toFixed(1)}×`;
    this.stage.classList.toggle("zoomed", view.zoom > 1);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    if (event.key === " ") {
      if (!this.grid.hidden || event.target.matches("button, summary")) return;
      this.flicker.swap();
    } else if (event.key === "n" || event.key === "p") this.open(this.list.neighbor(event.key === "n" ? 1 : -1));
    else if (!viewKey(event.key)) return;
    event.preventDefault();
  }
}
