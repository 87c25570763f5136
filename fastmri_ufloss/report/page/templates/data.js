// The document, what is chosen of it, and numbers as text.

const report = JSON.parse(document.getElementById("page-data").textContent);
const metricNamed = new Map(report.metrics.map((metric) => [metric.name, metric]));
const methodIndex = new Map(report.methods.map((method, index) => [method, index]));
const ALPHA = 0.05;

const chosen = { contrast: report.contrasts[0], reference: report.references[0] };
const listeners = [];

function onChoice(listener) {
  listeners.push(listener);
  listener();
}

const colorOf = (method) => report.colors[methodIndex.get(method)];
const colorDot = (method) => element("span", { class: "dot", style: { background: colorOf(method) }, "aria-hidden": "true" });
const isOf = (contrast) => (row) => contrast === "all" || row.contrast === contrast;

// Metrics against the chosen reference, and those that need none.
const shownMetrics = () => report.metrics.filter(({ reference }) => reference === null || reference === chosen.reference);

// The row of a method and metric in the means, or in the comparisons, of the chosen contrast.
const rowFinder = (rows, key) => (method, metric) =>
  rows.find((row) => row.contrast === chosen.contrast && row[key] === method && row.metric === metric.name);
const meanOf = rowFinder(report.means, "method");
const comparisonOf = rowFinder(report.comparisons, "second");
const endsOf = (row) => [row["95% from"], row["95% to"]];

// The name of a metric where its reference is clear from the choice, with unit, and with an arrow to where it is better.
const shortName = (metric) => metric.label + (metric.tested ? "" : "*");
const arrow = (metric) => ({ true: " ↑", false: " ↓" }[metric.larger_is_better] ?? "");
const headerOf = (metric) => shortName(metric) + (metric.unit ? ` (${metric.unit})` : "") + arrow(metric);

const withMinus = (text) => text.replace(/^-/, "−");
const format = (value, digits = 4) => (missing(value) ? "–" : withMinus(value.toPrecision(digits)));
const formatSigned = (value) => (value >= 0 && !missing(value) ? "+" : "") + format(value, 3);
const formatP = (value) => (missing(value) ? "–" : value < 0.001 ? "< 0.001" : value.toFixed(3));

// "better", "worse" or "" for a row of comparisons.
function verdict(row) {
  const larger = metricNamed.get(row.metric).larger_is_better;
  if (missing(row["p (Holm)"]) || row["p (Holm)"] >= ALPHA || !row.difference) return "";
  return row.difference > 0 === larger ? "better" : "worse";
}

// The indices of the best of some values, all of them where several are; none if nothing is better.
function bestOf(values, metric) {
  const present = values.filter((value) => !missing(value));
  if (metric.larger_is_better === null || present.length < 2) return new Set();
  const best = metric.larger_is_better ? Math.max(...present) : Math.min(...present);
  return new Set(values.flatMap((value, index) => (value === best ? [index] : [])));
}

// Scores of a method by subject, the means over the subject's volumes.
function bySubject(method, metric, contrast) {
  const rows = report.volumes.filter(isOf(contrast)).filter((row) => row.method === method && row[metric.name] !== null);
  const values = new Map();
  for (const row of rows) values.set(row.subject, [...(values.get(row.subject) ?? []), row[metric.name]]);
  const mean = (of) => of.reduce((sum, value) => sum + value) / of.length;
  return [...values].map(([subject, of]) => ({ subject, value: mean(of) }));
}
