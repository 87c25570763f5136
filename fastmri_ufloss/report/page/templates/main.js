// Everything on the page, from top to bottom.

let theViewer = null;

function showCounts() {
  const subjects = new Set(report.volumes.map((row) => row.subject)).size;
  const slices = report.volumes.reduce((sum, row) => sum + row.slices, 0);
  const counts = [[report.methods.length, "method"], [report.volumes.length, "volume"], [subjects, "subject"], [slices, "slice"]].map(([count, word]) => plural(count, word));
  counts.push(`reference ${report.references.join(", ")}`, `baseline ${report.baseline}`);
  document.getElementById("counts").append(...counts.map((text) => element("span", {}, text)));
}

function showRemarks() {
  const place = document.getElementById("remarks");
  if (report.notes.length) {
    place.append(element("details", { class: "notes", open: report.notes.length <= 5 },
      element("summary", {}, plural(report.notes.length, "note")), element("ul", {}, report.notes.map((note) => element("li", {}, note)))));
  }
  if (report.excluded.length) {
    const table = new SortedTable("What was left out, and why", { pageSize: 50 });
    const columns = Object.entries({ volume: "Volume", slice: "Slice", source: "Source", why: "Why" }).map(([name, header]) =>
      plainColumn(name, header, { numeric: name === "slice", rowHeader: name === "volume", cell: (row) => String(row[name] ?? "all") }));
    table.show(columns, report.excluded);
    place.append(element("details", { class: "notes excluded" },
      element("summary", {}, `${plural(report.excluded.length, "image")} or volumes left out`), table.node));
  }
  const settings = Object.entries(report.settings).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]);
  if (settings.length) place.append(explained("Settings", settings, { class: "notes" }));
}

function showChoices() {
  const place = document.getElementById("choices");
  for (const [key, label, options] of [["contrast", "Contrast", report.contrasts], ["reference", "Reference", report.references]]) {
    const named = options.map((name) => [name, key === "contrast" && name === "all" ? "all contrasts" : name]);
    if (options.length > 1) place.append(selectField(label, named, chosen[key], (value) => choose({ [key]: value }), { id: key }));
  }
}

function showViewer() {
  if (!report.cases.length) {
    bodyOf("images").append(legend("No cases were chosen."));
  } else if (typeof DecompressionStream === "undefined") {
    bodyOf("images").append(legend("This browser is too old to show the images: it has no DecompressionStream."));
  } else {
    theViewer = new Viewer();
    bodyOf("images").append(theViewer.node);
    theViewer.open(0);
  }
}

for (const show of [showCounts, showRemarks, showChoices, showMeans, showPlots, showScatter, showComparisons, showVolumes, showViewer]) show();
