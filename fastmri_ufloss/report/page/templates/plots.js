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
// Two metrics against each other, one point a method with the 95% intervals of both: the perception-distortion plot.

const SCATTER = { width: 560, height: 360, top: 14, bottom: 44, left: 62, right: 18 };

function scatterPoints(first, second) {
  const rows = new Map(report.means.filter((row) => row.contrast === chosen.contrast).map((row) => [`${methodIndex.get(row.method)} ${row.metric}`, row]));
  return report.methods.flatMap((method, index) => {
    const both = [first, second].map((metric) => rows.get(`${index} ${metric.name}`));
    if (both.some((row) => !row || row.mean === null)) return [];
    const ends = both.map((row) => (row["95% from"] === null ? [row.mean, row.mean] : [row["95% from"], row["95% to"]]));
    return [{ method, means: both.map((row) => row.mean), ends }];
  });
}

function scatterPlot(first, second) {
  const points = scatterPoints(first, second);
  if (!points.length) return element("p", { class: "legend" }, "No method has both values.");
  const { width, height, top, bottom, left, right } = SCATTER;
  const ranges = [0, 1].map((axis) => extent(points.flatMap((point) => point.ends[axis])));
  const x = (value) => left + ((value - ranges[0][0]) / (ranges[0][1] - ranges[0][0])) * (width - left - right);
  const y = (value) => height - bottom - ((value - ranges[1][0]) / (ranges[1][1] - ranges[1][0])) * (height - top - bottom);
  const ticks = ranges.map(([low, high], axis) => niceTicks(low, high, axis ? 5 : 6));
  const line = (name, x1, x2, y1, y2) => svgElement("line", { class: name, x1, x2, y1, y2 });
  const nodes = [
    ...ticks[0].flatMap((tick) => [line("grid", x(tick), x(tick), top, height - bottom), svgElement("text", { class: "tick", x: x(tick), y: height - bottom + 16, "text-anchor": "middle" }, tickText(tick, ticks[0]))]),
    ...ticks[1].flatMap((tick) => [line("grid", left, width - right, y(tick), y(tick)), svgElement("text", { class: "tick", x: left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, tickText(tick, ticks[1]))]),
    svgElement("text", { class: "axis", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, withUnit(first) + arrow(first)),
    svgElement("text", { class: "axis", transform: `translate(14 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, withUnit(second) + arrow(second)),
  ];
  for (const { method, means, ends } of points) {
    const [cx, cy] = [x(means[0]), y(means[1])];
    const lines = [method, `${shortName(first)} ${format(means[0], first)}`, `${shortName(second)} ${format(means[1], second)}`];
    nodes.push(svgElement("g", { class: "point", style: { "--color": colorOf(method) }, on: { pointermove: (event) => showTip(event, lines), pointerleave: hideTip } },
      line("reach", x(ends[0][0]), x(ends[0][1]), cy, cy), line("reach", cx, cx, y(ends[1][0]), y(ends[1][1])),
      svgElement("circle", { cx, cy, r: 5 }), svgElement("circle", { class: "target", cx, cy, r: 14 })));
  }
  const words = points.map(({ method, means }) => `${method} ${format(means[0], first)}, ${format(means[1], second)}`);
  return svgElement("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${first.name} against ${second.name}: ${words.join("; ")}` }, nodes);
}

// Distortion against perception where both are there, else the first two metrics.
function scatterStart(metrics) {
  const first = metrics.find((metric) => metric.label === "NRMSE") || metrics[0];
  const second = metrics.find((metric) => metric.label.startsWith("UFLoss") && metric.tested) || metrics.find((metric) => metric !== first);
  return [first, second];
}

function showScatter() {
  const body = bodyOf("scatter");
  let names = [];
  const draw = () => {
    const metrics = shownMetrics();
    if (metrics.length < 2) {
      body.replaceChildren(element("p", { class: "legend" }, "This needs two metrics."));
      return;
    }
    const start = scatterStart(metrics);
    const axes = [0, 1].map((axis) => metrics.find((metric) => metric.name === names[axis]) || start[axis]);
    const options = metrics.map((metric) => [metric.name, withUnit(metric) + arrow(metric)]);
    const field = (text, axis) => selectField(text, options, axes[axis].name, (name) => {
      names = axes.map((metric) => metric.name);
      names[axis] = name;
      draw();
      body.querySelectorAll("select")[axis].focus();
    });
    body.replaceChildren(
      element("div", { class: "row" }, field("Across", 0), field("Up", 1)),
      element("div", { class: "row beside" }, element("figure", { class: "plot" }, scatterPlot(axes[0], axes[1])), methodLegend()),
      element("p", { class: "legend" }, "Means over subjects, and their 95% intervals."),
    );
  };
  onChoice(draw);
}
