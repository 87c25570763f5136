// Everything on the page, from top to bottom.

let theViewer = null;

function showCounts() {
  const volumes = report.volumes.filter((row) => row.method === report.baseline);
  const subjects = new Set(volumes.map((row) => row.subject)).size;
  const slices = volumes.reduce((sum, row) => sum + row.slices, 0);
  const counts = { method: report.methods.length, volume: volumes.length, subject: subjects, slice: slices };
  const texts = Object.entries(counts).map(([word, count]) => plural(count, word));
  texts.push(`reference ${report.references.join(", ")}`, `baseline ${report.baseline}`);
  document.getElementById("counts").append(...texts.map((text) => element("span", {}, text)));
}

function showRemarks() {
  const { notes, excluded } = report;
  const remarks = document.getElementById("remarks");
  if (notes.length) {
    const list = element("ul", {}, notes.map((note) => element("li", {}, note)));
    remarks.append(fold(plural(notes.length, "note"), list, { class: "notes", open: notes.length <= 5 }));
  }
  if (excluded.length) {
    const table = new SortedTable("What was left out, and why", { pageSize: 50 });
    const cell = (name) => (row) => String(row[name] ?? "all");
    table.show([
      plainColumn("volume", "Volume", { cell: cell("volume"), rowHeader: true }),
      plainColumn("slice", "Slice", { cell: cell("slice"), numeric: true }),
      plainColumn("source", "Source"),
      plainColumn("why", "Why"),
    ], excluded);
    const summary = `${plural(excluded.length, "image")} or volumes left out`;
    remarks.append(fold(summary, table.node, { class: "notes excluded" }));
  }
  const settings = Object.entries(report.settings);
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const pairs = pairList(settings.map(([key, value]) => [key, text(value)]));
  if (settings.length) remarks.append(fold("Settings", pairs, { class: "notes" }));
}

function showChoices() {
  const all = report.contrasts.map((name) => [name, name === "all" ? "all contrasts" : name]);
  for (const [key, label, options] of [["contrast", "Contrast", all], ["reference", "Reference", report.references]]) {
    const choose = (value) => { chosen[key] = value; listeners.forEach((listener) => listener()); };
    const select = selectField(label, choose, { id: key });
    select.set(options, chosen[key]);
    if (options.length > 1) document.getElementById("choices").append(select.node);
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

const sections = [showMeans, showPlots, showScatter, showComparisons, showVolumes, showViewer];
for (const show of [showCounts, showRemarks, showChoices, ...sections]) show();
