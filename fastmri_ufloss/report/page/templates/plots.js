// Box plots, and two metrics against each other.

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

function tickText(value, ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : Math.abs(value) || 1;
  if (step < 1e-4 || Math.abs(value) >= 1e5) return value.toExponential(1);
  return value.toFixed(Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)))).replace("-", "−");
}

const svgLine = (name, x1, x2, y1, y2) => svgElement("line", { class: name, x1, x2, y1, y2 });
const svgText = (name, x, y, text, anchor = "middle") => svgElement("text", { class: name, x, y, "text-anchor": anchor }, text);

// Places of values between two ends, with some room around them, and round numbers to write there.
class Axis {
  constructor(values, from, to, count) {
    const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    const pad = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
    this.place = (value) => from + ((value - low + pad) / (high - low + 2 * pad)) * (to - from);
    const raw = (high - low + 2 * pad) / count;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw);
    const first = Math.ceil((low - pad) / step - 1e-9);
    this.ticks = Array.from({ length: Math.floor((high + pad) / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
  }

  // Lines across, with their numbers on the left.
  rows(left, right) {
    return this.ticks.map((tick) => [svgLine("grid", left, right, this.place(tick), this.place(tick)),
      svgText("tick", left - 6, this.place(tick) + 3.5, tickText(tick, this.ticks), "end")]);
  }

  // Lines upwards, with their numbers below.
  columns(top, bottom) {
    return this.ticks.map((tick) => [svgLine("grid", this.place(tick), this.place(tick), top, bottom),
      svgText("tick", this.place(tick), bottom + 16, tickText(tick, this.ticks))]);
  }
}

const PLOT = { height: 236, top: 10, bottom: 210, left: 50, right: 8, box: 15, step: 23, gap: 20 };

// The same jitter each time, spread evenly: multiples of the golden ratio.
const jitter = (index) => ((index * 0.618034) % 1) - 0.5;

// A metric: boxes grouped by contrast, subjects as dots. All dots of a box are one path, so that hundreds of subjects
// stay light; the dot below the pointer is found from its numbers.
class BoxPlot {
  constructor(metric) {
    this.metric = metric;
    this.dots = [];
    const contrasts = report.contrasts.filter((name) => name !== "all");
    this.groups = chosen.contrast === "all" && contrasts.length ? contrasts : [chosen.contrast];
    const groupWidth = report.methods.length * PLOT.step + PLOT.gap;
    this.boxes = this.groups.flatMap((group, g) => report.methods.map((method, m) => {
      const x = PLOT.left + PLOT.gap / 2 + g * groupWidth + (m + 0.5) * PLOT.step;
      return { group, method, x, subjects: bySubject(method, metric, group) };
    })).filter((box) => box.subjects.length);
    for (const box of this.boxes) Object.assign(box, boxOf(box.subjects.map((subject) => subject.value)));
    this.axis = new Axis(this.boxes.flatMap((box) => box.subjects.map((subject) => subject.value)), PLOT.bottom, PLOT.top, 5);
    this.width = PLOT.left + PLOT.right + this.groups.length * groupWidth;
    const labels = this.groups.map((group, g) => {
      const [text, start] = [this.groups.length === 1 && group === "all" ? "" : group, PLOT.left + g * groupWidth];
      return [svgText("group", start + groupWidth / 2, PLOT.height - 8, text), g ? svgLine("divider", start, start, PLOT.top, PLOT.bottom) : null];
    });
    const medians = this.boxes.map(({ method, group, median }) => `${method}${this.groups.length > 1 ? ` ${group}` : ""} ${format(median, metric)}`);
    this.over = svgElement("g", { class: "over" });
    this.svg = svgElement("svg", {
      viewBox: `0 0 ${this.width} ${PLOT.height}`, width: this.width, height: PLOT.height,
      role: "img", "aria-label": `${metric.name}, medians over subjects: ${medians.join(", ") || "none"}`,
      on: { pointermove: (event) => this.point(event), pointerleave: () => highlightSubject(null) },
    }, this.axis.rows(PLOT.left, this.width - PLOT.right), labels, this.boxes.map((box) => this.draw(box)), this.over);
    this.node = element("figure", { class: "plot" }, element("figcaption", { title: metric.explanation }, headerOf(metric)), this.svg);
  }

  draw({ method, x, subjects, ...box }) {
    const half = PLOT.box / 2;
    const y = (value) => this.axis.place(value);
    const points = subjects.map((subject, index) => ({ ...subject, method, x: x + jitter(index) * PLOT.box * 0.75, y: y(subject.value) }));
    this.dots.push(...points);
    return svgElement("g", { class: "box", style: { "--color": colorOf(method) } },
      svgLine("whisker", x, x, y(box.high), y(box.q3)), svgLine("whisker", x, x, y(box.q1), y(box.low)),
      svgElement("rect", { x: x - half, width: PLOT.box, y: y(box.q3), height: Math.max(y(box.q1) - y(box.q3), 0.5), rx: 1.5 }),
      svgElement("path", { class: "dots", d: points.map((dot) => `M${dot.x.toFixed(1)} ${dot.y.toFixed(1)}h0`).join(""), "stroke-width": points.length > 60 ? 2.5 : 4 }),
      svgLine("median", x - half, x + half, y(box.median), y(box.median)));
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
    const dots = this.dots.filter((dot) => dot.subject === subject);
    const path = dots.map((dot, i) => `${i && methodIndex.get(dot.method) > methodIndex.get(dots[i - 1].method) ? "L" : "M"}${dot.x} ${dot.y}`).join("");
    this.over.replaceChildren(...(dots.length ? [svgElement("path", { class: "joined", d: path })] : []),
      ...dots.map((dot) => svgElement("circle", { cx: dot.x, cy: dot.y, r: 4, style: { "--color": colorOf(dot.method) } })));
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

const methodLegend = () => element("ul", { class: "methods", "aria-label": "Colors of the methods" },
  report.methods.map((method) => element("li", {}, colorDot(method), nameText(method))));

function showPlots() {
  const place = div("plots");
  bodyOf("plots").append(methodLegend(), place, legend("A dot is a subject, the mean over its volumes. Box: quartiles and median; whiskers: to the last value within 1.5 interquartile ranges. Point at a dot to see its subject in all plots."));
  onChoice(() => {
    highlightSubject(null);
    plots = shownMetrics().map((metric) => new BoxPlot(metric)).filter((plot) => plot.dots.length);
    place.style.setProperty("--least", `${Math.min(0.82 * (plots[0]?.width ?? 0), 620)}px`);
    place.replaceChildren(...plots.map((plot) => plot.node));
  });
}

const SCATTER = { width: 560, height: 360, top: 14, bottom: 316, left: 62, right: 542 };

// One point a method with the 95% intervals of both metrics: the perception-distortion plot.
function scatterPlot(metrics) {
  const points = report.methods.flatMap((method) => {
    const rows = metrics.map((metric) => meanOf(method, metric));
    if (rows.some((row) => !row || row.mean === null)) return [];
    return [{ method, means: rows.map((row) => row.mean), ends: rows.map((row) => (row["95% from"] === null ? [row.mean, row.mean] : endsOf(row))) }];
  });
  if (!points.length) return legend("No method has both values.");
  const { width, height, top, bottom, left, right } = SCATTER;
  const across = new Axis(points.flatMap((point) => point.ends[0]), left, right, 6);
  const up = new Axis(points.flatMap((point) => point.ends[1]), bottom, top, 5);
  const title = svgText("axis", 0, 0, headerOf(metrics[1]));
  title.setAttribute("transform", `translate(14 ${(top + bottom) / 2}) rotate(-90)`);
  const marks = points.map(({ method, means, ends }) => {
    const [cx, cy] = [across.place(means[0]), up.place(means[1])];
    const lines = [method, ...metrics.map((metric, axis) => `${shortName(metric)} ${format(means[axis], metric)}`)];
    return svgElement("g", { class: "point", style: { "--color": colorOf(method) }, on: { pointermove: (event) => showTip(event, lines), pointerleave: hideTip } },
      svgLine("reach", ...ends[0].map(across.place), cy, cy), svgLine("reach", cx, cx, ...ends[1].map(up.place)),
      svgElement("circle", { cx, cy, r: 5 }), svgElement("circle", { class: "target", cx, cy, r: 14 }));
  });
  const words = points.map(({ method, means }) => `${method} ${metrics.map((metric, axis) => format(means[axis], metric)).join(", ")}`);
  return svgElement("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${metrics[0].name} against ${metrics[1].name}: ${words.join("; ")}` },
    across.columns(top, bottom), up.rows(left, right), svgText("axis", (left + right) / 2, height - 8, headerOf(metrics[0])), title, marks);
}

function showScatter() {
  const body = bodyOf("scatter");
  let names = [];
  const draw = () => {
    const metrics = shownMetrics();
    if (metrics.length < 2) {
      body.replaceChildren(legend("This needs two metrics."));
      return;
    }
    // distortion against perception where both are there, else the first two metrics
    const first = metrics.find((metric) => metric.label === "NRMSE") || metrics[0];
    const second = metrics.find((metric) => metric.label.startsWith("UFLoss") && metric.tested) || metrics.find((metric) => metric !== first);
    const axes = [first, second].map((start, axis) => metrics.find((metric) => metric.name === names[axis]) || start);
    const field = (text, axis) => selectField(text, metrics.map((metric) => [metric.name, headerOf(metric)]), axes[axis].name, (name) => {
      names = axes.map((metric) => metric.name);
      names[axis] = name;
      draw();
      body.querySelectorAll("select")[axis].focus();
    });
    body.replaceChildren(div("row", field("Across", 0), field("Up", 1)),
      div("row beside", element("figure", { class: "plot" }, scatterPlot(axes)), methodLegend()),
      legend("Means over subjects, and their 95% intervals."));
  };
  onChoice(draw);
}
