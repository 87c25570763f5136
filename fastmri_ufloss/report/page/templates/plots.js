// Box plots, and two metrics against each other.

// Quartiles, and whiskers to the last values within 1.5 interquartile ranges, as Tukey's.
function boxOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const [q1, median, q3] = [0.25, 0.5, 0.75].map((part) => {
    const place = (sorted.length - 1) * part;
    const low = Math.floor(place);
    return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  });
  const reach = 1.5 * (q3 - q1);
  const inside = sorted.filter((value) => value >= q1 - reach && value <= q3 + reach);
  return { q1, median, q3, low: inside[0], high: inside.at(-1) };
}

const svgLine = (name, x1, x2, y1, y2) => svgElement("line", { class: name, x1, x2, y1, y2 });
const svgText = (name, x, y, text, anchor = "middle") => svgElement("text", { class: name, x, y, "text-anchor": anchor }, text);
const svgImage = ({ width, height }, label, attributes, ...children) => svgElement("svg",
  { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, ...attributes }, children);

// Places of values between two ends, with some room around them, and round numbers to write there.
class Axis {
  constructor(values, from, to, count) {
    const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    const pad = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
    const range = high - low + 2 * pad;
    this.place = (value) => from + ((value - low + pad) / range) * (to - from);
    const unit = 10 ** Math.floor(Math.log10(range / count));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= range / count);
    const [first, last] = [Math.ceil((low - pad) / step - 1e-9), Math.floor((high + pad) / step + 1e-9)];
    this.ticks = Array.from({ length: last - first + 1 }, (_, i) => {
      const tick = (first + i) * step;
      return { place: this.place(tick), text: withMinus(String(Number(tick.toPrecision(5)))) };
    });
  }

  // Lines across, with their numbers on the left.
  rows(left, right) {
    return this.ticks.map(({ place, text }) =>
      [svgLine("grid", left, right, place, place), svgText("tick", left - 6, place + 3.5, text, "end")]);
  }

  // Lines upwards, with their numbers below.
  columns(top, bottom) {
    return this.ticks.map(({ place, text }) =>
      [svgLine("grid", place, place, top, bottom), svgText("tick", place, bottom + 16, text)]);
  }
}

const PLOT = { height: 236, top: 10, bottom: 210, left: 50, right: 8, box: 15, step: 23, gap: 20 };

// The same jitter each time, spread evenly: multiples of the golden ratio.
const jitter = (index) => ((index * 0.618034) % 1) - 0.5;

// A metric: boxes grouped by contrast, subjects as dots. All dots of a box are one path, so that hundreds of subjects
// stay light; the dot below the pointer is found from its numbers.
class BoxPlot {
  constructor(metric) {
    const contrasts = report.contrasts.filter((name) => name !== "all");
    const groups = chosen.contrast === "all" && contrasts.length ? contrasts : [chosen.contrast];
    const groupWidth = report.methods.length * PLOT.step + PLOT.gap;
    this.width = PLOT.left + PLOT.right + groups.length * groupWidth;
    const boxes = groups.flatMap((group, g) => report.methods.map((method, m) => {
      const x = PLOT.left + PLOT.gap / 2 + g * groupWidth + (m + 0.5) * PLOT.step;
      const dots = bySubject(method, metric, group).map((subject, index) =>
        ({ ...subject, method, x: x + jitter(index) * PLOT.box * 0.75 }));
      return { group, method, x, dots, ...boxOf(dots.map((dot) => dot.value)) };
    })).filter((box) => box.dots.length);
    this.dots = boxes.flatMap((box) => box.dots);
    const axis = new Axis(this.dots.map((dot) => dot.value), PLOT.bottom, PLOT.top, 5);
    for (const dot of this.dots) dot.y = axis.place(dot.value);
    const labels = groups.map((group, g) => {
      const start = PLOT.left + g * groupWidth;
      return [svgText("group", start + groupWidth / 2, PLOT.height - 8, group === "all" ? "" : group),
        g ? svgLine("divider", start, start, PLOT.top, PLOT.bottom) : null];
    });
    const medians = boxes.map(({ method, group, median }) => `${method} ${groups.length > 1 ? group : ""} ${format(median)}`);
    this.over = svgElement("g", { class: "over" });
    const on = { pointermove: (event) => this.point(event), pointerleave: () => highlightSubject(null) };
    this.svg = svgImage({ ...PLOT, width: this.width }, `${metric.name}, medians over subjects: ${medians.join(", ")}`, { on },
      axis.rows(PLOT.left, this.width - PLOT.right), labels, boxes.map((box) => this.draw(box, axis.place)), this.over);
    const caption = element("figcaption", { title: metric.explanation }, headerOf(metric));
    this.node = element("figure", { class: "plot" }, caption, this.svg);
  }

  draw({ method, x, dots, q1, median, q3, low, high }, y) {
    const left = x - PLOT.box / 2;
    const path = dots.map((dot) => `M${dot.x.toFixed(1)} ${dot.y.toFixed(1)}h0`).join("");
    return svgElement("g", { class: "box", style: { "--color": colorOf(method) } },
      svgLine("whisker", x, x, y(high), y(q3)), svgLine("whisker", x, x, y(q1), y(low)),
      svgElement("rect", { x: left, width: PLOT.box, y: y(q3), height: Math.max(y(q1) - y(q3), 0.5), rx: 1.5 }),
      svgElement("path", { class: "dots", d: path, "stroke-width": dots.length > 60 ? 2.5 : 4 }),
      svgLine("median", left, left + PLOT.box, y(median), y(median)));
  }

  point(event) {
    const frame = this.svg.getBoundingClientRect();
    const scale = this.width / frame.width;
    const [x, y] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    const far = (dot) => Math.hypot(dot.x - x, dot.y - y);
    const nearest = this.dots.reduce((best, dot) => (far(dot) < far(best) ? dot : best));
    if (far(nearest) >= 11) return highlightSubject(null);
    highlightSubject(nearest.subject);
    showTip(event, [`${nearest.method}: ${format(nearest.value)}`, `subject ${nearest.subject}`]);
  }

  // Rings around the dots of a subject, joined by a line within each contrast.
  highlight(subject) {
    const dots = this.dots.filter((dot) => dot.subject === subject);
    const isLater = (dot, before) => before && methodIndex.get(dot.method) > methodIndex.get(before.method);
    const path = dots.map((dot, i) => `${isLater(dot, dots[i - 1]) ? "L" : "M"}${dot.x} ${dot.y}`).join("");
    this.over.replaceChildren(svgElement("path", { class: "joined", d: path }),
      ...dots.map((dot) => svgElement("circle", { cx: dot.x, cy: dot.y, r: 4, style: { "--color": colorOf(dot.method) } })));
  }
}

let plots = [];

function highlightSubject(subject) {
  if (subject === null) hideTip();
  for (const plot of plots) plot.highlight(subject);
}

const methodLegend = () => element("ul", { class: "methods", "aria-label": "Colors of the methods" },
  report.methods.map((method) => element("li", {}, colorDot(method), nameText(method))));

const PLOT_WORDS = "A dot is a subject, the mean over its volumes. Box: quartiles and median; whiskers: to the last value within "
  + "1.5 interquartile ranges. Point at a dot to see its subject in all plots.";

function showPlots(body) {
  const place = div("plots");
  body.append(methodLegend(), place, legend(PLOT_WORDS));
  onChoice(() => {
    hideTip();
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
    if (rows.some((row) => missing(row?.mean))) return [];
    const texts = metrics.map((metric, axis) => `${shortName(metric)} ${format(rows[axis].mean)}`);
    return [{ method, texts, means: rows.map((row) => row.mean), ends: rows.map((row) => endsOf(row).map((end) => end ?? row.mean)) }];
  });
  if (!points.length) return legend("No method has both values.");
  const { height, top, bottom, left, right } = SCATTER;
  const across = new Axis(points.flatMap((point) => point.ends[0]), left, right, 6);
  const up = new Axis(points.flatMap((point) => point.ends[1]), bottom, top, 5);
  const title = svgText("axis", 0, 0, headerOf(metrics[1]));
  title.setAttribute("transform", `translate(14 ${(top + bottom) / 2}) rotate(-90)`);
  const marks = points.map(({ method, texts, means, ends }) => {
    const [cx, cy] = [across.place(means[0]), up.place(means[1])];
    const on = { pointermove: (event) => showTip(event, [method, ...texts]), pointerleave: hideTip };
    return svgElement("g", { class: "point", style: { "--color": colorOf(method) }, on },
      svgLine("reach", ...ends[0].map(across.place), cy, cy), svgLine("reach", cx, cx, ...ends[1].map(up.place)),
      svgElement("circle", { cx, cy, r: 5 }), svgElement("circle", { class: "target", cx, cy, r: 14 }));
  });
  const words = points.map(({ method, texts }) => `${method} ${texts.join(", ")}`);
  return svgImage(SCATTER, `${metrics.map((metric) => metric.name).join(" against ")}: ${words.join("; ")}`, {},
    across.columns(top, bottom), up.rows(left, right),
    svgText("axis", (left + right) / 2, height - 8, headerOf(metrics[0])), title, marks);
}

function showScatter(body) {
  const names = [];
  const place = div("row");
  const draw = () => {
    const metrics = shownMetrics();
    // distortion against perception where both are there, else the first two metrics
    const first = metrics.find(({ label }) => label === "NRMSE") || metrics[0];
    const perception = metrics.find(({ label, tested }) => label.startsWith("UFLoss") && tested);
    const second = perception || metrics.find((metric) => metric !== first) || first;
    const axes = [first, second].map((usual, axis) => metrics.find(({ name }) => name === names[axis]) || usual);
    axes.forEach((metric, axis) => {
      names[axis] = metric.name;
      fields[axis].show(metrics.map((each) => [each.name, headerOf(each)]));
    });
    place.replaceChildren(element("figure", { class: "plot" }, scatterPlot(axes)), methodLegend());
  };
  const fields = ["Across", "Up"].map((text, axis) => selectField(text, names, axis, draw));
  body.append(div("row", fields.map((field) => field.node)), place,
    legend("Means over subjects, and their 95% intervals."));
  onChoice(draw);
}
