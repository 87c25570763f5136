// The tables of the page, which sort by a click on a column, with the rows on pages where there are many.

// columns: {name, header, title, numeric, value(row), cell(row) -> text or nodes, descending: first click sorts so,
// rowHeader}. rows are sorted as they come until a column is clicked; what is null stays last.
class SortedTable {
  constructor(caption, { pageSize = Infinity } = {}) {
    Object.assign(this, { pageSize, page: 0, sortName: null, direction: 1, columns: [], rows: [] });
    this.head = element("tr");
    this.body = element("tbody");
    const table = element("table", {}, element("caption", { class: "hidden" }, caption), element("thead", {}, this.head), this.body);
    this.pager = element("div", { class: "pager", hidden: true });
    const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
    this.node = element("div", {}, scroll, this.pager);
  }

  show(columns, rows) {
    Object.assign(this, { columns, rows, page: 0 });
    this.head.replaceChildren(...columns.map(({ name, header, title, numeric }) =>
      element("th", { scope: "col", class: numeric ? "number" : null, "data-column": name }, button(header, () => this.sort(name), { title }))));
    this.draw();
  }

  sort(name) {
    const column = this.columns.find((column) => column.name === name);
    this.direction = this.sortName === name ? -this.direction : column.descending ? -1 : 1;
    Object.assign(this, { sortName: name, page: 0 });
    this.draw();
  }

  sorted() {
    const column = this.columns.find((column) => column.name === this.sortName);
    if (!column) return this.rows;
    const keyed = this.rows.map((row, index) => ({ row, index, key: column.value(row) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.index - b.index;
      const order = column.numeric ? a.key - b.key : String(a.key).localeCompare(String(b.key), undefined, { numeric: true });
      return this.direction * order || a.index - b.index;
    });
    return keyed.map((entry) => entry.row);
  }

  draw() {
    for (const cell of this.head.children) {
      const sorted = cell.dataset.column === this.sortName;
      cell.setAttribute("aria-sort", !sorted ? "none" : this.direction > 0 ? "ascending" : "descending");
    }
    const first = this.page * this.pageSize || 0;
    const rows = this.sorted().slice(first, first + this.pageSize);
    const none = element("tr", {}, element("td", { colspan: this.columns.length, class: "none" }, "no rows"));
    this.body.replaceChildren(...(rows.length ? rows.map((row) => this.row(row)) : [none]));
    const last = first + rows.length;
    const turn = (text, label, by, possible) => button(text, () => { this.page += by; this.draw(); }, { "aria-label": label, disabled: !possible });
    this.pager.hidden = this.rows.length <= this.pageSize;
    this.pager.replaceChildren(
      turn("‹", "Previous rows", -1, first > 0),
      element("span", { "aria-live": "polite" }, `${first + 1}–${last} of ${this.rows.length}`),
      turn("›", "Next rows", 1, last < this.rows.length),
    );
  }

  row(row) {
    return element("tr", {}, this.columns.map((column) => {
      const names = [column.numeric ? "number" : "", column.mark ? column.mark(row) : ""].join(" ").trim();
      const attributes = { scope: column.rowHeader ? "row" : null, class: names || null };
      return element(column.rowHeader ? "th" : "td", attributes, column.cell ? column.cell(row) : column.value(row) ?? "–");
    }));
  }
}

const plainColumn = (name, header, more = {}) => ({ name, header, value: (row) => row[name], ...more });
const numberColumn = (name, header, title, cell) => plainColumn(name, header, { title, numeric: true, cell });
const metricColumn = (metric, value, more = {}) => ({
  name: metric.name, header: headerOf(metric), title: metric.explanation, numeric: true, descending: metric.larger_is_better === true,
  value, cell: (row) => format(value(row), metric), ...more,
});

function methodCell({ method }) {
  const base = method === report.baseline ? element("span", { class: "chip" }, "baseline") : null;
  return element("span", { class: "method" }, colorDot(method), nameText(method), base);
}

// A value, and below it the ends of its interval.
const withInterval = (value, [low, high], text, between) => [element("span", { class: "value" }, value),
  low === null ? null : element("span", { class: "interval" }, `${text(low)} ${between} ${text(high)}`)];

function showMeans() {
  const table = new SortedTable("Means over subjects with 95% intervals");
  const words = div("legend");
  bodyOf("means").append(table.node, words);
  const valueOf = (method, metric) => meanOf(method, metric)?.mean ?? null;
  const columnOf = (metric) => {
    const best = bestOf(report.methods.map((method) => valueOf(method, metric)), metric);
    const cell = ({ method }) => {
      if (valueOf(method, metric) === null) return "–";
      const [mean, comparison] = [meanOf(method, metric), comparisonOf(method, metric)];
      const side = comparison ? verdict(comparison) : "";
      const words = { role: "img", "aria-label": `significantly ${side} than the baseline`, title: `significantly ${side} than ${report.baseline}` };
      const mark = side ? element("span", { class: side, ...words }, side === "better" ? "▲" : "▼") : null;
      return withInterval([mark, format(mean.mean, metric)], endsOf(mean), (end) => format(end, metric), "–");
    };
    const mark = ({ method }) => (best.has(methodIndex.get(method)) ? "best" : "");
    return metricColumn(metric, ({ method }) => valueOf(method, metric), { cell, mark });
  };
  onChoice(() => {
    const metrics = shownMetrics();
    const subjects = ({ method }) => Math.max(0, ...metrics.map((metric) => meanOf(method, metric)?.subjects ?? 0));
    table.show([
      plainColumn("method", "Method", { cell: methodCell, rowHeader: true }),
      { name: "subjects", header: "Subjects", value: subjects, numeric: true },
      ...metrics.map(columnOf),
    ], report.methods.map((method) => ({ method })));
    words.replaceChildren(...meansLegend(metrics));
  });
}

function meansLegend(metrics) {
  const sample = (name, text) => element("span", { class: name }, text);
  const parts = ["Mean over subjects, below it the 95% interval. ", sample("best sample", "best of the column"), "; ↑ larger is better, ↓ smaller is better. "];
  if (report.comparisons.some((row) => verdict(row))) {
    parts.push(sample("better", "▲"), " better or ", sample("worse", "▼"), ` worse than ${report.baseline} (Holm's p < ${ALPHA}). `);
  }
  if (metrics.some((metric) => !metric.tested)) parts.push("* not tested. ");
  return [element("p", {}, parts), explained("What the metrics mean", metrics.map((metric) => [shortName(metric), metric.explanation]))];
}

// Differences from the baseline, paired by subject.
function showComparisons() {
  const table = new SortedTable(`Differences from ${report.baseline}`, { pageSize: 100 });
  const words = `Every method against the baseline ${report.baseline}, subjects paired. What is marked * elsewhere is not tested.`;
  bodyOf("comparisons").append(element("p", { class: "lead" }, words), table.node);
  const metricOf = (row) => metricNamed.get(row.metric);
  const mean = (name, header) => numberColumn(name, header, null, (row) => format(row[name], metricOf(row)));
  const effect = (row) => (row["effect size"] === null ? "–" : row["effect size"].toFixed(2).replace("-", "−"));
  const columns = [
    plainColumn("metric", "Metric", { cell: (row) => row.metric + arrow(metricOf(row)), rowHeader: true }),
    plainColumn("second", "Method", { cell: (row) => methodCell({ method: row.second }) }),
    mean("mean of second", "Mean"),
    mean("mean of first", `Mean of ${report.baseline}`),
    numberColumn("difference", "Difference (95%)", "mean of the differences by subject, method minus baseline",
      (row) => withInterval(formatSigned(row.difference), endsOf(row), formatSigned, "…")),
    numberColumn("p", "p", "Wilcoxon's signed-rank test, two-sided", (row) => formatP(row.p)),
    numberColumn("p (Holm)", "p (Holm)", "adjusted for all comparisons of the table by Holm's method", (row) => formatP(row["p (Holm)"])),
    numberColumn("effect size", "Effect size", "rank-biserial correlation, −1 to 1", effect),
    plainColumn("better in", "Better in", { title: "subjects in which the method is better" }),
    { name: "verdict", header: `Against ${report.baseline}`, title: `from Holm's p < ${ALPHA}`, value: verdict,
      cell: (row) => element("span", { class: `chip ${verdict(row)}` }, verdict(row) || "not shown to differ") },
  ];
  onChoice(() => table.show(columns, report.comparisons.filter((row) => row.contrast === chosen.contrast)));
}

// All volumes: every metric of each method, filtered by text and method.
function showVolumes() {
  const table = new SortedTable("Volumes", { pageSize: 50 });
  const count = element("span", { class: "count", "aria-live": "polite" });
  const search = element("input", { type: "search", id: "volume-filter", placeholder: "volume, subject, method …", on: { input: () => draw() } });
  let chosenMethod = "";
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = report.volumes.filter(inContrast).flatMap((volume) => report.methods.flatMap((method, index) => {
      const text = `${volume.volume} ${volume.subject} ${volume.contrast} ${method}`.toLowerCase();
      const isShown = volume.scores[index] !== null && (!chosenMethod || method === chosenMethod) && words.every((word) => text.includes(word));
      return isShown ? [{ ...volume, method, scores: volume.scores[index] }] : [];
    }));
    count.textContent = plural(rows.length, "row");
    table.show([
      plainColumn("volume", "Volume", { rowHeader: true, cell: volumeCell }),
      plainColumn("subject", "Subject"),
      ...(report.contrasts.length > 1 ? [plainColumn("contrast", "Contrast")] : []),
      plainColumn("method", "Method", { cell: methodCell }),
      numberColumn("slices", "Slices"),
      ...shownMetrics().map((metric) => metricColumn(metric, (row) => row.scores[metric.index])),
    ], rows);
  };
  const methods = [["", "all methods"], ...report.methods];
  bodyOf("volumes").append(div("row",
    element("label", { class: "field" }, element("span", {}, "Filter"), search),
    selectField("Method", methods, "", (method) => { chosenMethod = method; draw(); }, { id: "volume-method" }), count), table.node);
  onChoice(draw);
}

// The name of a volume, which opens its first case if it has one.
function volumeCell({ volume }) {
  const index = report.cases.findIndex((entry) => entry.volume === volume);
  if (index < 0) return nameText(volume);
  const open = () => { theViewer?.open(index); document.getElementById("images").scrollIntoView(); };
  return button(volume, open, { class: "link name", title: `Show images of ${volume}` });
}
