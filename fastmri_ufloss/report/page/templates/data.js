// The document, what is chosen of it, and numbers as text.

const report = JSON.parse(document.getElementById("page-data").textContent);
const metricIndex = new Map(report.metrics.map((metric, index) => [metric.name, index]));
const methodIndex = new Map(report.methods.map((method, index) => [method, index]));
const ALPHA = 0.05;

const chosen = { contrast: report.contrasts[0], reference: report.references[0] };
const listeners = [];

function onChoice(listener) {
  listeners.push(listener);
  listener();
}

function choose(changes) {
  Object.assign(chosen, changes);
  for (const listener of listeners) listener();
}

const colorOf = (method) => report.colors[methodIndex.get(method)];

// Metrics against the chosen reference, and those that need none.
function shownMetrics() {
  return report.metrics.filter((metric) => metric.reference === null || metric.reference === chosen.reference);
}

function inContrast(row) {
  return chosen.contrast === "all" || row.contrast === chosen.contrast;
}

// The name of a metric where its reference is clear from the choice.
const shortName = (metric) => metric.label + (metric.tested ? "" : "*");
const withUnit = (metric) => shortName(metric) + (metric.unit ? ` (${metric.unit})` : "");

function arrow(metric) {
  if (metric.larger_is_better === null) return "";
  return metric.larger_is_better ? " ↑" : " ↓";
}

// As many decimals for all values of a metric as its largest one needs for three digits, and one more where the
// means of methods would look alike.
const decimalsOf = (() => {
  const known = new Map();
  const find = (metric) => {
    const means = report.means.filter((row) => row.metric === metric.name && row.mean !== null);
    const largest = Math.max(...means.map((row) => Math.abs(row.mean)), 0);
    if (!(largest > 0)) return 3;
    const least = Math.min(Math.max(2 - Math.floor(Math.log10(largest)), 0), 12);
    const values = [...new Set(means.filter((row) => row.contrast === report.contrasts[0]).map((row) => row.mean))];
    return new Set(values.map((value) => value.toFixed(least))).size === values.length ? least : least + 1;
  };
  return (metric) => {
    if (!known.has(metric.name)) known.set(metric.name, find(metric));
    return known.get(metric.name);
  };
})();

function format(value, metric) {
  if (value === null || value === undefined) return "–";
  const decimals = decimalsOf(metric);
  return (decimals > 6 ? value.toExponential(2) : value.toFixed(decimals)).replace("-", "−");
}

// A difference needs digits of its own.
function formatSigned(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-4 || size >= 1e5) ? size.toExponential(1) : size.toPrecision(3);
  return (value < 0 ? "−" : "+") + text;
}

function formatP(value) {
  if (value === null || value === undefined) return "–";
  return value < 0.001 ? "< 0.001" : value.toFixed(3);
}

// "better", "worse" or "" for a row of comparisons.
function verdict(row) {
  const metric = report.metrics[metricIndex.get(row.metric)];
  if (row["p (Holm)"] === null || row["p (Holm)"] >= ALPHA || row.difference === null || !row.difference) return "";
  if (metric === undefined || metric.larger_is_better === null) return "";
  return row.difference > 0 === metric.larger_is_better ? "better" : "worse";
}

// The numbers of some of the values that are best, all of them where several are; none if nothing is better.
function bestOf(values, metric) {
  const found = values.filter((value) => value !== null && value !== undefined);
  if (metric.larger_is_better === null || found.length < 2) return new Set();
  const best = metric.larger_is_better ? Math.max(...found) : Math.min(...found);
  return new Set(values.flatMap((value, index) => (value === best ? [index] : [])));
}

// Scores of a method by subject, the means over the subject's volumes.
function bySubject(method, metric, contrast) {
  const sums = new Map();
  const [m, k] = [methodIndex.get(method), metricIndex.get(metric.name)];
  for (const volume of report.volumes) {
    const value = volume.scores[m] === null ? null : volume.scores[m][k];
    if (value === null || (contrast !== "all" && volume.contrast !== contrast)) continue;
    const sum = sums.get(volume.subject) || [0, 0];
    sums.set(volume.subject, [sum[0] + value, sum[1] + 1]);
  }
  return [...sums].map(([subject, [sum, count]]) => ({ subject, value: sum / count }));
}
