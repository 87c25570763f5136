// The list of cases, in the order of their choice or by the score of a method.

const caseOrder = { metric: "", method: report.methods[report.methods.length - 1], worstFirst: true };

function caseValue(one) {
  const scores = one.scores[methodIndex.get(caseOrder.method)];
  return caseOrder.metric ? scores[metricIndex.get(caseOrder.metric)] : null;
}

function orderedCases() {
  const listed = report.cases.map((one, index) => ({ ...one, index })).filter(inContrast);
  if (!caseOrder.metric) return listed;
  const metric = report.metrics[metricIndex.get(caseOrder.metric)];
  const sign = (metric.larger_is_better === false ? -1 : 1) * (caseOrder.worstFirst ? 1 : -1);
  const key = (one) => (caseValue(one) === null ? Infinity : sign * caseValue(one));
  return listed.sort((a, b) => (key(a) === key(b) ? a.index - b.index : key(a) - key(b)));
}

class CaseList {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.current = 0;
    this.list = element("ol", { class: "cases", "aria-label": "Cases" });
    this.orders = element("div", { class: "orders" });
    this.node = element("div", { class: "case-list" }, this.orders, this.list);
    onChoice(() => this.draw());
  }

  draw() {
    const metrics = shownMetrics();
    if (!metrics.some((metric) => metric.name === caseOrder.metric)) caseOrder.metric = "";
    const change = (key) => (value) => { caseOrder[key] = value; this.draw(); this.orders.querySelector(`#case-${key}`)?.focus(); };
    const options = [["", "order of choice"], ...metrics.map((metric) => [metric.name, shortName(metric) + arrow(metric)])];
    this.orders.replaceChildren(selectField("Order by", options, caseOrder.metric, change("metric"), { id: "case-metric" }));
    if (caseOrder.metric) {
      this.orders.append(
        selectField("of", report.methods.map((method) => [method, method]), caseOrder.method, change("method"), { id: "case-method" }),
        toggleButton("worst first", caseOrder.worstFirst, change("worstFirst"), { id: "case-worstFirst" }).button,
      );
    }
    this.listed = orderedCases();
    this.list.replaceChildren(...this.listed.map((one) => element("li", {}, this.entry(one))));
    if (!this.listed.length) this.list.append(element("li", { class: "none" }, "no cases of this contrast"));
  }

  entry(one) {
    const value = caseOrder.metric ? format(caseValue(one), report.metrics[metricIndex.get(caseOrder.metric)]) : null;
    const why = value === null ? one.why : `${caseOrder.metric} of ${caseOrder.method}: ${value}`;
    return element("button", {
      type: "button", class: "case", "data-case": one.index, "aria-current": one.index === this.current ? "true" : null,
      on: { click: () => this.onOpen(one.index) },
    },
    element("img", { src: one.thumbnail, alt: "" }),
    element("span", { class: "text" },
      element("span", { class: "name" }, one.volume),
      element("span", { class: "place" }, `slice ${one.slice}${report.contrasts.length > 1 ? ` · ${one.contrast}` : ""}`),
      element("span", { class: "why" }, why)));
  }

  // Marks the case that is shown.
  mark(index) {
    this.current = index;
    for (const button of this.list.querySelectorAll("button")) {
      if (Number(button.dataset.case) === index) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  // The case that is so many places further in the list, round and round.
  neighbour(by) {
    if (!this.listed.length) return this.current;
    const place = this.listed.findIndex((one) => one.index === this.current);
    return this.listed[(place + by + this.listed.length) % this.listed.length].index;
  }
}
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
// The images of a case side by side, or two of them by turns, with what belongs to all of them.

class Panel {
  constructor(name, method) {
    Object.assign(this, { name, method });
    this.main = new ImageCanvas(name, "image");
    this.error = method === null ? null : new ImageCanvas(`Error of ${name}`, "error");
    this.readout = element("span", { class: "readout" }, "\u00a0");
    this.scores = element("dl", { class: "scores" });
    this.missing = element("p", { class: "missing", hidden: true }, "no image");
    const title = element("figcaption", {}, method === null ? null : colorDot(method), element("span", { class: "name", title: name }, name), this.readout);
    const bar = element("div", { class: "color-bar error-row" }, element("div", { class: "ramp", "aria-hidden": "true" }), this.barText = element("span", {}));
    this.below = this.error ? this.error.canvas : bar;
    this.below.classList.add("error-row");
    this.node = element("figure", { class: "panel", "data-name": name }, title, element("div", { class: "frame" }, this.main.canvas, this.missing), this.below, this.scores);
    for (const shown of this.canvases()) addGestures(shown);
  }

  canvases() {
    return this.error ? [this.main, this.error] : [this.main];
  }

  setCase(one, reference, images) {
    this.missing.hidden = one.image !== null;
    this.main.setImage(one.image, { outlines: outlinesOf(one, images.truth) });
    if (this.error) this.error.setImage(reference.image === null ? null : one.image, { reference: reference.image });
    else if (one.image) this.below.style.aspectRatio = `${one.image.cols} / ${one.image.rows}`;
  }

  read({ top }) {
    const { cursor } = view;
    const { image } = this.main;
    this.readout.textContent = cursor && image ? (image.values[cursor.row * image.cols + cursor.col] / top).toFixed(3) : "\u00a0";
  }
}

class Viewer {
  constructor() {
    this.panels = [];
    this.images = null;
    this.index = null;
    this.pending = { paint: false, draw: false };
    this.list = new CaseList((index) => this.open(index));
    this.grid = element("div", { class: "panels" });
    this.flicker = new Flicker();
    this.heading = element("div", { class: "case-heading", "aria-live": "polite" });
    this.toolbar = element("div", { class: "toolbar", role: "toolbar", "aria-label": "Image controls" });
    this.stage = element("div", {
      class: "stage", tabindex: "0", role: "group", "aria-label": "Image viewer. Keys: plus and minus zoom, arrows move, 0 resets, brackets change the window, n and p change the case, space swaps the flicker",
      on: { keydown: (event) => this.key(event) },
    }, this.heading, this.toolbar, this.grid, this.flicker.node, viewerHelp());
    this.node = element("div", { class: "viewer" }, this.list.node, this.stage);
    Object.assign(viewer, { repaint: () => this.schedule(true), redraw: () => this.schedule(false), syncControls: () => this.syncControls() });
    this.buildToolbar();
    new ResizeObserver(() => this.schedule(false)).observe(this.grid);
    onChoice(() => { if (this.images) this.showImages(); });
  }

  buildToolbar() {
    const percent = (value) => `${Math.round(100 * value)}%`;
    const button = (text, click, attributes = {}) => element("button", { type: "button", ...attributes, on: { click } }, text);
    const toggle = (text, key, after, name = "") => toggleButton(text, view[key], (on) => { view[key] = on; after(); }, { id: `toggle-${key}`, class: `toggle ${name}` }).button;
    this.level = sliderField("Level", { id: "level", min: 0, max: 1.5, step: 0.005, value: view.level, text: percent }, (level) => setWindow(level, view.width));
    this.width = sliderField("Width", { id: "width", min: 0.01, max: 2, step: 0.005, value: view.width, text: percent }, (width) => setWindow(view.level, width));
    const gain = sliderField("Error gain", { id: "gain", min: 1, max: 30, step: 1, value: view.gain, text: (value) => `×${value}` }, (value) => { view.gain = value; this.barTexts(); this.schedule(true); });
    const size = sliderField("Size", { id: "size", min: 130, max: 640, step: 10, value: 230, text: (value) => `${value} px` }, (value) => this.grid.style.setProperty("--size", `${value}px`));
    this.mode = toggleButton("Flicker", false, (on) => this.setFlicker(on), { id: "toggle-flicker" });
    this.contours = toggle("Contours", "contours", () => { this.legend(); this.schedule(false); });
    this.zoomText = element("output", { class: "zoom", "aria-label": "Zoom" });
    this.contourLegend = element("span", { class: "contour-legend" });
    this.toolbar.append(
      element("div", { class: "group" }, this.mode.button, toggle("Errors", "errors", () => this.showErrors(), "of-panels"), this.contours, this.contourLegend, toggle("Smooth", "smooth", () => this.schedule(false))),
      element("div", { class: "group" }, button("−", () => zoomAround(0.8, 0, 0), { "aria-label": "Zoom out" }), this.zoomText, button("+", () => zoomAround(1.25, 0, 0), { "aria-label": "Zoom in" }), button("Reset zoom", resetZoom, { id: "reset-zoom" })),
      element("div", { class: "group" }, this.level.field, this.width.field, button("Reset window", () => this.resetWindow(), { id: "reset-window" })),
      element("div", { class: "group of-panels" }, gain.field, size.field),
    );
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
    const one = report.cases[this.index];
    const reference = this.images.references.find((found) => found.name === chosen.reference);
    const turn = (text, label, by) => element("button", { type: "button", "aria-label": label, on: { click: () => this.open(this.list.neighbour(by)) } }, text);
    this.heading.replaceChildren(turn("‹", "Previous case", -1), turn("›", "Next case", 1),
      element("div", {}, element("h3", {}, `${one.volume}, slice ${one.slice}`), element("p", {}, one.why)));
    if (!view.ownWindow) this.setDefaultWindow();
    this.buildPanels(reference);
    this.flicker.setCase([...this.images.references, ...this.images.methods], this.images);
    const any = this.images.truth || [...this.images.references, ...this.images.methods].some((found) => found.outline);
    this.contours.hidden = !any;
    this.legend();
    this.showErrors();
    this.barTexts();
    this.schedule(true);
    this.stage.dataset.shown = String(this.index);
  }

  buildPanels(reference) {
    const names = [chosen.reference, ...report.methods];
    if (this.panels.map((panel) => panel.name).join("\n") !== names.join("\n")) {
      this.panels = names.map((name, i) => new Panel(name, i ? name : null));
      this.grid.replaceChildren(...this.panels.map((panel) => panel.node));
    }
    [reference, ...this.images.methods].forEach((found, i) => this.panels[i].setCase(found, reference, this.images));
    this.showScores();
  }

  showScores() {
    const { scores } = report.cases[this.index];
    const metrics = shownMetrics().filter((metric) => scores.some((row) => row[metricIndex.get(metric.name)] !== null));
    const best = metrics.map((metric) => bestOf(scores.map((row) => row[metricIndex.get(metric.name)]), metric));
    this.panels.slice(1).forEach((panel, m) => panel.scores.replaceChildren(...metrics.flatMap((metric, k) => [
      element("dt", { title: metric.explanation }, shortName(metric)),
      element("dd", { class: best[k].has(m) ? "best" : null }, format(scores[m][metricIndex.get(metric.name)], metric)),
    ])));
  }

  showErrors() {
    this.grid.classList.toggle("no-errors", !view.errors);
    this.schedule(true);
  }

  barTexts() {
    const percent = (100 * this.images.white) / this.images.top / view.gain;
    this.panels[0].barText.textContent = `|error|, 0 to ${percent.toPrecision(2)}% of the reference's maximum`;
  }

  legend() {
    const shown = view.contours && !this.contours.hidden;
    this.contourLegend.replaceChildren(...(shown ? [element("span", { class: "true" }, "true"), element("span", { class: "predicted" }, "predicted")] : []));
  }

  setDefaultWindow() {
    const width = this.images.white / this.images.top;
    Object.assign(view, { level: width / 2, width, ownWindow: false });
    this.syncControls();
  }

  resetWindow() {
    this.setDefaultWindow();
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

  schedule(paint) {
    this.pending.paint ||= paint;
    if (this.pending.draw || !this.images) return;
    this.pending.draw = true;
    requestAnimationFrame(() => this.render());
  }

  render() {
    const { paint } = this.pending;
    this.pending = { paint: false, draw: false };
    const shown = this.grid.hidden ? [this.flicker.shown] : this.panels.flatMap((panel) => panel.canvases()).filter((one) => view.errors || !one.reference);
    for (const one of shown) {
      if (paint) one.paint(view, this.images);
      one.draw(view);
    }
    for (const panel of this.panels) panel.read(this.images);
    this.zoomText.textContent = `${view.zoom.toFixed(1)}×`;
    this.stage.classList.toggle("zoomed", view.zoom > 1);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    if (event.key === " " && !this.grid.hidden) return;
    if (event.key === " " && event.target.matches("button, summary")) return;
    if (event.key === " ") this.flicker.swap();
    else if (event.key === "n" || event.key === "p") this.open(this.list.neighbour(event.key === "n" ? 1 : -1));
    else if (!viewKey(event.key)) return;
    event.preventDefault();
  }
}

function viewerHelp() {
  const keys = {
    "wheel, pinch, + and −": "zoom all images", "drag, arrows": "move", "double click, 0": "reset the zoom",
    "right drag or shift drag": "window: right is softer, up is brighter", "[ and ], b and d": "narrower and wider, brighter and darker",
    "n and p": "next and previous case", "space": "swap the two images of the flicker",
  };
  return element("details", { class: "help" }, element("summary", {}, "Mouse and keys"),
    element("dl", { class: "pairs" }, Object.entries(keys).map(([key, text]) => [element("dt", {}, key), element("dd", {}, text)])));
}
