// The document, what is chosen of it, and numbers as text.

const report = JSON.parse(document.getElementById("page-data").textContent);
for (const metric of report.metrics) metric.decimals = decimalsOf(metric);
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

// As many decimals for all values of a metric as its largest one needs for three digits, and one more where the
// means of methods would look alike.
function decimalsOf({ name }) {
  const means = report.means.filter((row) => row.metric === name && row.mean !== null);
  const largest = Math.max(...means.map((row) => Math.abs(row.mean)), 0);
  if (largest === 0) return 3;
  const decimals = Math.min(Math.max(2 - Math.floor(Math.log10(largest)), 0), 12);
  const values = new Set(means.filter((row) => row.contrast === report.contrasts[0]).map((row) => row.mean));
  const texts = new Set([...values].map((value) => value.toFixed(decimals)));
  return texts.size === values.size ? decimals : decimals + 1;
}

const withMinus = (text) => text.replace("-", "−");

function format(value, { decimals }) {
  if (missing(value)) return "–";
  return withMinus(decimals > 6 ? value.toExponential(2) : value.toFixed(decimals));
}

// A difference needs digits of its own.
function formatSigned(value) {
  if (missing(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-4 || size >= 1e5) ? size.toExponential(1) : size.toPrecision(3);
  return (value < 0 ? "−" : "+") + text;
}

const formatP = (value) => (missing(value) ? "–" : value < 0.001 ? "< 0.001" : value.toFixed(3));

// "better", "worse" or "" for a row of comparisons.
function verdict(row) {
  const larger = metricNamed.get(row.metric)?.larger_is_better;
  if (missing(larger) || missing(row["p (Holm)"]) || row["p (Holm)"] >= ALPHA || !row.difference) return "";
  return row.difference > 0 === larger ? "better" : "worse";
}

// The indices of those of some values that are best, all of them where several are; none if nothing is better.
function bestOf(values, metric) {
  const present = values.filter((value) => !missing(value));
  if (metric.larger_is_better === null || present.length < 2) return new Set();
  const best = metric.larger_is_better ? Math.max(...present) : Math.min(...present);
  return new Set(values.flatMap((value, index) => (value === best ? [index] : [])));
}

// Scores of a method by subject, the means over the subject's volumes.
function bySubject(method, metric, contrast) {
  const values = new Map();
  for (const row of report.volumes.filter(isOf(contrast))) {
    const value = row[metric.name];
    if (row.method === method && value !== null) values.set(row.subject, [...(values.get(row.subject) ?? []), value]);
  }
  const mean = (of) => of.reduce((sum, value) => sum + value) / of.length;
  return [...values].map(([subject, of]) => ({ subject, value: mean(of) }));
}
