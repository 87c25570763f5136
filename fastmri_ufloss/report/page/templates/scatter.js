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
