// The tables of the page, which sort by a click on a column, with the rows on pages where there are many.

// columns: {name, header, title, numeric, value(row), cell(row) -> text or nodes, descending: first click sorts so,
// rowHeader, mark(row) -> class}. rows stay as they come until a column is clicked; what is null stays last.
class SortedTable {
  constructor(caption, { pageSize = Infinity } = {}) {
    Object.assign(this, { pageSize, page: 0, sortName: null, direction: 1, columns: [], rows: [] });
    this.head = element("tr");
    this.body = element("tbody");
    this.pager = div("pager");
    const table = element("table", { "aria-label": caption }, element("thead", {}, this.head), this.body);
    const region = { class: "scroll", tabindex: "0", role: "region", "aria-label": caption };
    this.node = element("div", {}, element("div", region, table), this.pager);
  }

  show(columns, rows) {
    Object.assign(this, { columns, rows, page: 0 });
    this.head.replaceChildren(...columns.map(({ name, header, title, numeric }) => element("th",
      { scope: "col", class: numeric && "number", "data-column": name }, button(header, () => this.sort(name), { title }))));
    this.draw();
  }

  column(name) {
    return this.columns.find((column) => column.name === name);
  }

  sort(name) {
    this.direction = this.sortName === name ? -this.direction : this.column(name).descending ? -1 : 1;
    Object.assign(this, { sortName: name, page: 0 });
    this.draw();
  }

  sorted() {
    const { numeric, value } = this.column(this.sortName) ?? {};
    if (!value) return this.rows;
    const compare = numeric ? (a, b) => a - b : (a, b) => String(a).localeCompare(b, undefined, { numeric: true });
    const present = this.rows.filter((row) => value(row) !== null);
    present.sort((a, b) => this.direction * compare(value(a), value(b)));
    return [...present, ...this.rows.filter((row) => value(row) === null)];
  }

  draw() {
    for (const cell of this.head.children) {
      const direction = this.direction > 0 ? "ascending" : "descending";
      cell.setAttribute("aria-sort", cell.dataset.column === this.sortName ? direction : "none");
    }
    const first = this.page * this.pageSize || 0;
    const rows = this.sorted().slice(first, first + this.pageSize);
    const last = first + rows.length;
    const none = element("tr", {}, element("td", { colspan: this.columns.length, class: "none" }, "no rows"));
    this.body.replaceChildren(...(rows.length ? rows.map((row) => this.row(row)) : [none]));
    const turn = (text, label, by, possible) =>
      button(text, () => { this.page += by; this.draw(); }, { "aria-label": label, disabled: !possible });
    this.pager.hidden = this.rows.length <= this.pageSize;
    this.pager.replaceChildren(
      turn("‹", "Previous rows", -1, first > 0),
      element("span", { "aria-live": "polite" }, `${first + 1}–${last} of ${this.rows.length}`),
      turn("›", "Next rows", 1, last < this.rows.length),
    );
  }

  row(row) {
    return element("tr", {}, this.columns.map(({ numeric, mark, rowHeader, value, cell = value }) => {
      const attributes = { scope: rowHeader && "row", class: `${numeric ? "number" : ""} ${mark?.(row) ?? ""}` };
      return element(rowHeader ? "th" : "td", attributes, cell(row) ?? "–");
    }));
  }
}

const plainColumn = (name, header, more) => ({ name, header, value: (row) => row[name], ...more });
const numberColumn = (name, header, title, cell) => plainColumn(name, header, { title, numeric: true, cell });
const metricColumn = (metric, value, more) => ({
  name: metric.name, header: headerOf(metric), title: metric.explanation, numeric: true,
  descending: metric.larger_is_better === true, value, cell: (row) => format(value(row)), ...more,
});

function methodCell({ method }) {
  return span("method", colorDot(method), nameText(method), method === report.baseline ? span("chip", "baseline") : null);
}

// A value, and below it the ends of its interval.
const withInterval = (value, [low, high], text, between) =>
  [span("value", value), low === null ? null : span("interval", `${text(low)} ${between} ${text(high)}`)];

function showMeans(body) {
  const table = new SortedTable("Means over subjects with 95% intervals");
  const meanings = div("legend");
  body.append(table.node, legend("Mean over subjects, below it the 95% interval. ", span("sample", "best of the column"),
    "; ↑ larger is better, ↓ smaller is better. ", span("better", "▲"), " better or ", span("worse", "▼"),
    ` worse than ${report.baseline} (Holm's p < ${ALPHA}). * not tested.`), meanings);
  const columnOf = (metric) => {
    const value = ({ method }) => meanOf(method, metric)?.mean ?? null;
    const best = bestOf(report.methods.map((method) => value({ method })), metric);
    const cell = ({ method }) => {
      const [row, comparison] = [meanOf(method, metric), comparisonOf(method, metric)];
      if (missing(row?.mean)) return "–";
      return withInterval([comparison && verdictMark(verdict(comparison)), format(row.mean)], endsOf(row), format, "–");
    };
    return metricColumn(metric, value, { cell, mark: ({ method }) => (best.has(methodIndex.get(method)) ? "best" : "") });
  };
  onChoice(() => {
    const metrics = shownMetrics();
    const subjects = ({ method }) => Math.max(0, ...metrics.map((metric) => meanOf(method, metric)?.subjects ?? 0));
    table.show([
      plainColumn("method", "Method", { cell: methodCell, rowHeader: true }),
      { name: "subjects", header: "Subjects", value: subjects, numeric: true },
      ...metrics.map(columnOf),
    ], report.methods.map((method) => ({ method })));
    const pairs = metrics.map((metric) => [shortName(metric), metric.explanation]);
    meanings.replaceChildren(fold("What the metrics mean", pairList(pairs)));
  });
}

function verdictMark(side) {
  if (!side) return null;
  const words = `significantly ${side} than the baseline`;
  return element("span", { class: side, role: "img", "aria-label": words, title: words }, side === "better" ? "▲" : "▼");
}

// Differences from the baseline, paired by subject.
function showComparisons(body) {
  const base = report.baseline;
  const table = new SortedTable(`Differences from ${base}`, { pageSize: 100 });
  const words = `Every method against the baseline ${base}, subjects paired. What is marked * elsewhere is not tested.`;
  body.append(element("p", { class: "lead" }, words), table.node);
  const metricOf = (row) => metricNamed.get(row.metric);
  const mean = (name, header) => numberColumn(name, header, null, (row) => format(row[name]));
  const columns = [
    plainColumn("metric", "Metric", { cell: (row) => row.metric + arrow(metricOf(row)), rowHeader: true }),
    plainColumn("second", "Method", { cell: (row) => methodCell({ method: row.second }) }),
    mean("mean of second", "Mean"),
    mean("mean of first", `Mean of ${base}`),
    numberColumn("difference", "Difference (95%)", "mean of the differences by subject, method minus baseline",
      (row) => withInterval(formatSigned(row.difference), endsOf(row), formatSigned, "…")),
    numberColumn("p", "p", "Wilcoxon's signed-rank test, two-sided", (row) => formatP(row.p)),
    numberColumn("p (Holm)", "p (Holm)", "adjusted for all comparisons of the table by Holm's method",
      (row) => formatP(row["p (Holm)"])),
    numberColumn("effect size", "Effect size", "rank-biserial correlation, −1 to 1",
      (row) => format(row["effect size"], 2)),
    plainColumn("better in", "Better in", { title: "subjects in which the method is better" }),
    { name: "verdict", header: `Against ${base}`, title: `from Holm's p < ${ALPHA}`, value: verdict,
      cell: (row) => span(`chip ${verdict(row)}`, verdict(row) || "not shown to differ") },
  ];
  onChoice(() => table.show(columns, report.comparisons.filter((row) => row.contrast === chosen.contrast)));
}

// All volumes: every metric of each method, filtered by text and method.
function showVolumes(body) {
  const filter = { method: "", words: [] };
  const table = new SortedTable("Volumes", { pageSize: 50 });
  const count = element("span", { class: "count", "aria-live": "polite" });
  const draw = () => {
    const rows = report.volumes.filter(isOf(chosen.contrast)).filter(({ volume, subject, contrast, method }) => {
      const text = `${volume} ${subject} ${contrast} ${method}`.toLowerCase();
      return ["", method].includes(filter.method) && filter.words.every((word) => text.includes(word));
    });
    count.textContent = plural(rows.length, "row");
    table.show([
      plainColumn("volume", "Volume", { rowHeader: true, cell: volumeCell }),
      plainColumn("subject", "Subject"),
      ...(report.contrasts.length > 1 ? [plainColumn("contrast", "Contrast")] : []),
      plainColumn("method", "Method", { cell: methodCell }),
      numberColumn("slices", "Slices"),
      ...shownMetrics().map((metric) => metricColumn(metric, (row) => row[metric.name])),
    ], rows);
  };
  const input = (event) => { filter.words = event.target.value.toLowerCase().split(/\s+/); draw(); };
  const placeholder = "volume, subject, method …";
  const search = element("input", { type: "search", id: "volume-filter", placeholder, on: { input } });
  const methods = selectField("Method", filter, "method", draw, { id: "volume-method" });
  methods.show([["", "all methods"], ...report.methods]);
  body.append(div("row", field("Filter", search), methods.node, count), table.node);
  onChoice(draw);
}

// The name of a volume, which opens its first case if it has one.
function volumeCell({ volume }) {
  const index = report.cases.findIndex((entry) => entry.volume === volume);
  if (index < 0) return nameText(volume);
  const open = () => { theViewer?.open(index); document.getElementById("images").scrollIntoView(); };
  return button(volume, open, { class: "link name", title: `Show images of ${volume}` });
}
