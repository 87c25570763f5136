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
