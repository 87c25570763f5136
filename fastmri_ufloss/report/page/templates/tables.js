// Tables that sort by a click on a column, with the rows on pages where there are many.

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
    this.columns = columns;
    this.rows = rows;
    this.page = 0;
    this.head.replaceChildren(...columns.map((column) => this.headCell(column)));
    this.draw();
  }

  headCell(column) {
    const button = element("button", { type: "button", title: column.title, on: { click: () => this.sort(column.name) } }, column.header);
    return element("th", { scope: "col", class: column.numeric ? "number" : null, "data-column": column.name }, button);
  }

  sort(name) {
    const column = this.columns.find((one) => one.name === name);
    this.direction = this.sortName === name ? -this.direction : column.descending ? -1 : 1;
    this.sortName = name;
    this.page = 0;
    this.draw();
  }

  sorted() {
    const column = this.columns.find((one) => one.name === this.sortName);
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
    this.body.replaceChildren(...rows.map((row) => this.row(row)));
    if (!rows.length) {
      this.body.append(element("tr", {}, element("td", { colspan: this.columns.length, class: "none" }, "no rows")));
    }
    this.drawPager(first, rows.length);
  }

  row(row) {
    return element("tr", {}, this.columns.map((column) =>
      element(column.rowHeader ? "th" : "td", {
        scope: column.rowHeader ? "row" : null,
        class: [column.numeric ? "number" : "", column.mark ? column.mark(row) : ""].join(" ").trim() || null,
      }, column.cell ? column.cell(row) : column.value(row) ?? "–")));
  }

  drawPager(first, count) {
    this.pager.hidden = this.rows.length <= this.pageSize;
    if (this.pager.hidden) return;
    const turn = (text, label, by, possible) => element("button", {
      type: "button", "aria-label": label, disabled: !possible, on: { click: () => { this.page += by; this.draw(); } },
    }, text);
    const last = first + count;
    this.pager.replaceChildren(
      turn("‹", "Previous rows", -1, first > 0),
      element("span", { "aria-live": "polite" }, `${first + 1}–${last} of ${this.rows.length}`),
      turn("›", "Next rows", 1, last < this.rows.length),
    );
  }
}
// What is compared, remarks, the choices for the whole page, and the table of means.

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

function showCounts() {
  const subjects = new Set(report.volumes.map((row) => row.subject)).size;
  const counts = [plural(report.methods.length, "method"), plural(report.volumes.length, "volume"), plural(subjects, "subject")];
  const slices = report.volumes.reduce((sum, row) => sum + row.slices, 0);
  counts.push(plural(slices, "slice"), `reference ${report.references.join(", ")}`, `baseline ${report.baseline}`);
  document.getElementById("counts").replaceChildren(...counts.map((text) => element("span", {}, text)));
}

function showRemarks() {
  const place = document.getElementById("remarks");
  if (report.notes.length) {
    place.append(element("details", { class: "notes", open: report.notes.length <= 5 },
      element("summary", {}, plural(report.notes.length, "note")),
      element("ul", {}, report.notes.map((note) => element("li", {}, note)))));
  }
  if (report.excluded.length) {
    const table = new SortedTable("What was left out, and why", { pageSize: 50 });
    const texts = { volume: "Volume", slice: "Slice", source: "Source", why: "Why" };
    table.show(Object.entries(texts).map(([name, header]) => ({
      name, header, numeric: name === "slice", value: (row) => row[name], rowHeader: name === "volume",
      cell: (row) => (row[name] === null ? "all" : String(row[name])),
    })), report.excluded);
    place.append(element("details", { class: "notes excluded" },
      element("summary", {}, `${plural(report.excluded.length, "image")} or volumes left out`), table.node));
  }
  const settings = Object.entries(report.settings);
  if (settings.length) {
    const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
    place.append(element("details", { class: "notes" }, element("summary", {}, "Settings"),
      element("dl", { class: "pairs" }, settings.map(([key, value]) => [element("dt", {}, key), element("dd", {}, text(value))]))));
  }
}

function showChoices() {
  const place = document.getElementById("choices");
  if (report.contrasts.length > 1) {
    const options = report.contrasts.map((name) => [name, name === "all" ? "all contrasts" : name]);
    place.append(selectField("Contrast", options, chosen.contrast, (contrast) => choose({ contrast }), { id: "contrast" }));
  }
  if (report.references.length > 1) {
    const options = report.references.map((name) => [name, name]);
    place.append(selectField("Reference", options, chosen.reference, (reference) => choose({ reference }), { id: "reference" }));
  }
}

function methodCell(method) {
  const base = method === report.baseline ? element("span", { class: "chip" }, "baseline") : null;
  return element("span", { class: "method" }, colorDot(method), element("span", { class: "name", title: method }, method), base);
}

function meanRows() {
  const found = new Map(report.means.filter((row) => row.contrast === chosen.contrast).map((row) => [`${methodIndex.get(row.method)} ${row.metric}`, row]));
  return report.methods.map((method, index) => ({ method, mean: (metric) => found.get(`${index} ${metric.name}`) || null }));
}

function meanCell(row, metric, verdicts) {
  const mean = row.mean(metric);
  if (mean === null || mean.mean === null) return "–";
  const found = verdicts.get(`${methodIndex.get(row.method)} ${metric.name}`);
  const mark = found ? element("span", { class: found, role: "img", "aria-label": `significantly ${found} than the baseline`, title: `significantly ${found} than ${report.baseline}` }, found === "better" ? "▲" : "▼") : null;
  const interval = mean["95% from"] === null ? null : element("span", { class: "interval" }, `${format(mean["95% from"], metric)} – ${format(mean["95% to"], metric)}`);
  return [element("span", { class: "value" }, mark, format(mean.mean, metric)), interval];
}

function meanColumns(rows) {
  const chosenRows = report.comparisons.filter((row) => row.contrast === chosen.contrast);
  const verdicts = new Map(chosenRows.map((row) => [`${methodIndex.get(row.second)} ${row.metric}`, verdict(row)]));
  const subjects = (row) => Math.max(0, ...shownMetrics().map((metric) => row.mean(metric)?.subjects ?? 0));
  return [
    { name: "method", header: "Method", value: (row) => row.method, cell: (row) => methodCell(row.method), rowHeader: true },
    { name: "subjects", header: "Subjects", value: subjects, numeric: true },
    ...shownMetrics().map((metric) => {
      const best = bestOf(rows.map((row) => row.mean(metric)?.mean ?? null), metric);
      return {
        name: metric.name, header: withUnit(metric) + arrow(metric), title: metric.explanation, numeric: true,
        descending: metric.larger_is_better === true, value: (row) => row.mean(metric)?.mean ?? null,
        cell: (row) => meanCell(row, metric, verdicts), mark: (row) => (best.has(rows.indexOf(row)) ? "best" : ""),
      };
    }),
  ];
}

function showMeans() {
  const table = new SortedTable("Means over subjects with 95% intervals");
  const legend = element("div", { class: "legend" });
  bodyOf("means").append(table.node, legend);
  onChoice(() => {
    const rows = meanRows();
    table.show(meanColumns(rows), rows);
    legend.replaceChildren(...meansLegend());
  });
}

function meansLegend() {
  const metrics = shownMetrics();
  const parts = ["Mean over subjects, below it the 95% interval. ", element("span", { class: "best sample" }, "best of the column"), "; ↑ larger is better, ↓ smaller is better. "];
  if (report.comparisons.some((row) => verdict(row))) {
    parts.push(element("span", { class: "better" }, "▲"), " better or ", element("span", { class: "worse" }, "▼"), ` worse than ${report.baseline} (Holm's p < ${ALPHA}). `);
  }
  if (metrics.some((metric) => !metric.tested)) parts.push("* not tested. ");
  return [element("p", {}, parts), element("details", {}, element("summary", {}, "What the metrics mean"),
    element("dl", { class: "pairs" }, metrics.map((metric) => [element("dt", {}, shortName(metric)), element("dd", {}, metric.explanation)])))];
}
// Differences from the baseline, paired by subject.

function comparisonColumns() {
  const metricOf = (row) => report.metrics[metricIndex.get(row.metric)];
  const number = (name, header, title, cell) => ({ name, header, title, numeric: true, value: (row) => row[name], cell: cell || ((row) => format(row[name], metricOf(row))) });
  const interval = (row) => [element("span", { class: "value" }, formatSigned(row.difference)),
    row["95% from"] === null ? null : element("span", { class: "interval" }, `${formatSigned(row["95% from"])} … ${formatSigned(row["95% to"])}`)];
  const chip = (row) => element("span", { class: `chip ${verdict(row)}` }, verdict(row) || "not shown to differ");
  return [
    { name: "metric", header: "Metric", value: (row) => row.metric, cell: (row) => row.metric + arrow(metricOf(row)), rowHeader: true },
    { name: "second", header: "Method", value: (row) => row.second, cell: (row) => methodCell(row.second) },
    number("mean of second", "Mean"),
    number("mean of first", `Mean of ${report.baseline}`),
    number("difference", "Difference (95%)", "mean of the differences by subject, method minus baseline", interval),
    number("p", "p", "Wilcoxon's signed-rank test, two-sided", (row) => formatP(row.p)),
    number("p (Holm)", "p (Holm)", "adjusted for all comparisons of the table by Holm's method", (row) => formatP(row["p (Holm)"])),
    number("effect size", "Effect size", "rank-biserial correlation, −1 to 1", (row) => (row["effect size"] === null ? "–" : row["effect size"].toFixed(2).replace("-", "−"))),
    { name: "better in", header: "Better in", title: "subjects in which the method is better", value: (row) => row["better in"] },
    { name: "verdict", header: `Against ${report.baseline}`, title: `from Holm's p < ${ALPHA}`, value: (row) => verdict(row), cell: chip },
  ];
}

function showComparisons() {
  const table = new SortedTable(`Differences from ${report.baseline}`, { pageSize: 100 });
  const note = element("p", { class: "lead" }, `Every method against the baseline ${report.baseline}, subjects paired. What is marked * elsewhere is not tested.`);
  bodyOf("comparisons").append(note, table.node);
  onChoice(() => {
    table.show(comparisonColumns(), report.comparisons.filter((row) => row.contrast === chosen.contrast));
  });
}
// All volumes: every metric of each method, filtered by text and method; a page of rows at a time.

const volumeFilter = { text: "", method: "" };

function volumeRows() {
  const words = volumeFilter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [];
  for (const volume of report.volumes) {
    if (!inContrast(volume)) continue;
    report.methods.forEach((method, index) => {
      if (volume.scores[index] === null || (volumeFilter.method && method !== volumeFilter.method)) return;
      const text = `${volume.volume} ${volume.subject} ${volume.contrast} ${method}`.toLowerCase();
      if (words.every((word) => text.includes(word))) rows.push({ ...volume, method, scores: volume.scores[index] });
    });
  }
  return rows;
}

function volumeColumns() {
  const plain = (name, header, numeric = false) => ({ name, header, numeric, value: (row) => row[name] });
  const columns = [
    { ...plain("volume", "Volume"), rowHeader: true, cell: (row) => volumeCell(row.volume) },
    plain("subject", "Subject"),
    ...(report.contrasts.length > 1 ? [plain("contrast", "Contrast")] : []),
    { ...plain("method", "Method"), cell: (row) => methodCell(row.method) },
    plain("slices", "Slices", true),
  ];
  return columns.concat(shownMetrics().map((metric) => ({
    name: metric.name, header: withUnit(metric) + arrow(metric), title: metric.explanation, numeric: true,
    descending: metric.larger_is_better === true,
    value: (row) => row.scores[metricIndex.get(metric.name)], cell: (row) => format(row.scores[metricIndex.get(metric.name)], metric),
  })));
}

// The name of a volume, which opens its first case if it has one.
function volumeCell(volume) {
  const index = report.cases.findIndex((one) => one.volume === volume);
  if (index < 0) return element("span", { class: "name", title: volume }, volume);
  const open = () => { showCase(index); document.getElementById("images").scrollIntoView(); };
  return element("button", { type: "button", class: "link name", title: `Show images of ${volume}`, on: { click: open } }, volume);
}

function showVolumes() {
  const table = new SortedTable("Volumes", { pageSize: 50 });
  const count = element("span", { class: "count", "aria-live": "polite" });
  const draw = () => {
    const rows = volumeRows();
    count.textContent = plural(rows.length, "row");
    table.show(volumeColumns(), rows);
  };
  const search = element("input", { type: "search", id: "volume-filter", placeholder: "volume, subject, method …", on: { input: () => { volumeFilter.text = search.value; draw(); } } });
  const methods = [["", "all methods"], ...report.methods.map((method) => [method, method])];
  bodyOf("volumes").append(element("div", { class: "row" },
    element("label", { class: "field" }, element("span", {}, "Filter"), search),
    selectField("Method", methods, "", (method) => { volumeFilter.method = method; draw(); }, { id: "volume-method" }), count), table.node);
  onChoice(draw);
}
