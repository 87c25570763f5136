// Box plots: one for each metric, grouped by contrast, subjects as dots. All dots of a box are one path, so that
// hundreds of subjects stay light; the dot below the pointer is found from its numbers.

const PLOT = { height: 236, top: 10, bottom: 26, left: 50, right: 8, box: 15, step: 23, gap: 20 };

function quantile(sorted, part) {
  const place = (sorted.length - 1) * part;
  const low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

// Quartiles, and whiskers to the last values within 1.5 interquartile ranges, as Tukey's.
function boxOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const [q1, median, q3] = [0.25, 0.5, 0.75].map((part) => quantile(sorted, part));
  const reach = 1.5 * (q3 - q1);
  const inside = sorted.filter((value) => value >= q1 - reach && value <= q3 + reach);
  return { q1, median, q3, low: inside[0], high: inside[inside.length - 1] };
}

function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

function tickText(value, ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : Math.abs(value) || 1;
  if (step < 1e-4 || Math.abs(value) >= 1e5) return value.toExponential(1);
  return value.toFixed(Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)))).replace("-", "−");
}

function extent(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  return [low - pad, high + pad];
}

// The same jitter each time, spread evenly: multiples of the golden ratio.
const jitter = (index) => ((index * 0.618034) % 1) - 0.5;

function plotGroups() {
  const contrasts = report.contrasts.filter((name) => name !== "all");
  if (chosen.contrast !== "all" || !contrasts.length) return [chosen.contrast];
  return contrasts;
}

class BoxPlot {
  constructor(metric) {
    this.metric = metric;
    this.dots = [];
    this.groups = plotGroups();
    this.boxes = this.groups.flatMap((group, g) => report.methods.map((method, m) => {
      const x = PLOT.left + PLOT.gap / 2 + g * (report.methods.length * PLOT.step + PLOT.gap) + (m + 0.5) * PLOT.step;
      return { group, method, x, subjects: bySubject(method, metric, group) };
    }));
    const values = this.boxes.flatMap((box) => box.subjects.map((one) => one.value));
    [this.low, this.high] = values.length ? extent(values) : [0, 1];
    this.width = PLOT.left + PLOT.right + this.groups.length * (report.methods.length * PLOT.step + PLOT.gap);
    this.over = svgElement("g", { class: "over" });
    this.svg = svgElement("svg", {
      viewBox: `0 0 ${this.width} ${PLOT.height}`, width: this.width, height: PLOT.height, role: "img", "aria-label": this.words(),
      on: { pointermove: (event) => this.point(event), pointerleave: () => highlightSubject(null) },
    }, this.axes(), this.boxes.map((box) => this.draw(box)), this.over);
    const title = withUnit(metric) + arrow(metric);
    this.node = element("figure", { class: "plot" }, element("figcaption", { title: metric.explanation }, title), this.svg);
  }

  y(value) {
    return PLOT.height - PLOT.bottom - ((value - this.low) / (this.high - this.low)) * (PLOT.height - PLOT.top - PLOT.bottom);
  }

  words() {
    const medians = this.boxes.filter((box) => box.subjects.length).map((box) => {
      const { median } = boxOf(box.subjects.map((one) => one.value));
      return `${box.method}${this.groups.length > 1 ? ` ${box.group}` : ""} ${format(median, this.metric)}`;
    });
    return `${this.metric.name}, medians over subjects: ${medians.join(", ") || "none"}`;
  }

  axes() {
    const ticks = niceTicks(this.low, this.high, 5);
    const [left, right] = [PLOT.left, this.width - PLOT.right];
    const nodes = ticks.flatMap((tick) => [
      svgElement("line", { class: "grid", x1: left, x2: right, y1: this.y(tick), y2: this.y(tick) }),
      svgElement("text", { class: "tick", x: left - 6, y: this.y(tick) + 3.5, "text-anchor": "end" }, tickText(tick, ticks)),
    ]);
    const groupWidth = report.methods.length * PLOT.step + PLOT.gap;
    this.groups.forEach((group, g) => {
      const text = this.groups.length === 1 && group === "all" ? "" : group;
      nodes.push(svgElement("text", { class: "group", x: left + (g + 0.5) * groupWidth, y: PLOT.height - 8, "text-anchor": "middle" }, text));
      if (g) nodes.push(svgElement("line", { class: "divider", x1: left + g * groupWidth, x2: left + g * groupWidth, y1: PLOT.top, y2: PLOT.height - PLOT.bottom }));
    });
    return nodes;
  }

  draw({ method, x, subjects }) {
    if (!subjects.length) return svgElement("g");
    const { q1, median, q3, low, high } = boxOf(subjects.map((one) => one.value));
    const half = PLOT.box / 2;
    const points = subjects.map((one, index) => ({ ...one, method, x: x + jitter(index) * PLOT.box * 0.75, y: this.y(one.value) }));
    this.dots.push(...points);
    const line = (x1, x2, y1, y2, name) => svgElement("line", { class: name, x1, x2, y1, y2 });
    const group = svgElement("g", { class: "box", style: { "--color": colorOf(method) } },
      line(x, x, this.y(high), this.y(q3), "whisker"), line(x, x, this.y(q1), this.y(low), "whisker"),
      svgElement("rect", { x: x - half, width: PLOT.box, y: this.y(q3), height: Math.max(this.y(q1) - this.y(q3), 0.5), rx: 1.5 }),
      svgElement("path", { class: "dots", d: points.map((dot) => `M${dot.x.toFixed(1)} ${dot.y.toFixed(1)}h0`).join(""), "stroke-width": points.length > 60 ? 2.5 : 4 }),
      line(x - half, x + half, this.y(median), this.y(median), "median"));
    return group;
  }

  point(event) {
    const frame = this.svg.getBoundingClientRect();
    const [x, y] = [(event.clientX - frame.left) * this.width / frame.width, (event.clientY - frame.top) * PLOT.height / frame.height];
    let [nearest, least] = [null, 11];
    for (const dot of this.dots) {
      const distance = Math.hypot(dot.x - x, dot.y - y);
      if (distance < least) [nearest, least] = [dot, distance];
    }
    highlightSubject(nearest && nearest.subject);
    if (nearest) showTip(event, [`${nearest.method}: ${format(nearest.value, this.metric)}`, `subject ${nearest.subject}`]);
  }

  // Rings around the dots of a subject, joined by a line within each contrast.
  highlight(subject) {
    const dots = subject === null ? [] : this.dots.filter((dot) => dot.subject === subject);
    const path = dots.map((dot, i) => `${i && methodIndex.get(dot.method) > methodIndex.get(dots[i - 1].method) ? "L" : "M"}${dot.x} ${dot.y}`).join("");
    this.over.replaceChildren(
      ...(dots.length ? [svgElement("path", { class: "joined", d: path })] : []),
      ...dots.map((dot) => svgElement("circle", { cx: dot.x, cy: dot.y, r: 4, style: { "--color": colorOf(dot.method) } })),
    );
  }
}

let plots = [];
let highlighted = null;

function highlightSubject(subject) {
  if (subject === null) hideTip();
  if (subject === highlighted) return;
  highlighted = subject;
  for (const plot of plots) plot.highlight(subject);
}

function methodLegend() {
  return element("ul", { class: "methods", "aria-label": "Colours of the methods" },
    report.methods.map((method) => element("li", {}, colorDot(method), element("span", { class: "name", title: method }, method))));
}

function showPlots() {
  const place = element("div", { class: "plots" });
  bodyOf("plots").append(methodLegend(), place, element("p", { class: "legend" },
    "A dot is a subject, the mean over its volumes. Box: quartiles and median; whiskers: to the last value within 1.5 interquartile ranges. Point at a dot to see its subject in all plots."));
  onChoice(() => {
    highlightSubject(null);
    plots = shownMetrics().map((metric) => new BoxPlot(metric)).filter((plot) => plot.dots.length);
    place.style.setProperty("--least", `${Math.min(0.82 * (plots[0]?.width ?? 0), 620)}px`);
    place.replaceChildren(...plots.map((plot) => plot.node));
  });
}
