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
