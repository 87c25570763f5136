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
