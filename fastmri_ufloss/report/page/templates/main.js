// Everything on the page, from top to bottom.

let theViewer = null;

function showCounts() {
  const volumes = report.volumes.filter((row) => row.method === report.baseline);
  const subjects = new Set(volumes.map((row) => row.subject)).size;
  const slices = volumes.reduce((sum, row) => sum + row.slices, 0);
  document.getElementById("counts").textContent = [
    plural(report.methods.length, "method"), plural(volumes.length, "volume"), plural(subjects, "subject"),
    plural(slices, "slice"), `reference ${report.references.join(", ")}`, `baseline ${report.baseline}`,
  ].join(" · ");
}

function showRemarks() {
  const { notes, excluded } = report;
  const settings = Object.entries(report.settings);
  const add = (summary, content, attributes) =>
    document.getElementById("remarks").append(fold(summary, content, { class: "notes", ...attributes }));
  if (notes.length) {
    const list = element("ul", {}, notes.map((note) => element("li", {}, note)));
    add(plural(notes.length, "note"), list, { open: notes.length <= 5 });
  }
  if (excluded.length) {
    const table = new SortedTable("What was left out, and why", { pageSize: 50 });
    table.show([
      plainColumn("volume", "Volume", { rowHeader: true }),
      plainColumn("slice", "Slice", { cell: (row) => row.slice ?? "all", numeric: true }),
      plainColumn("source", "Source"),
      plainColumn("why", "Why"),
    ], excluded);
    add(`${plural(excluded.length, "image")} or volumes left out`, table.node);
  }
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  if (settings.length) add("Settings", pairList(settings.map(([key, value]) => [key, text(value)])));
}

function showChoices() {
  const contrasts = report.contrasts.map((name) => [name, name === "all" ? "all contrasts" : name]);
  for (const [key, label, options] of [["contrast", "Contrast", contrasts], ["reference", "Reference", report.references]]) {
    const select = selectField(label, chosen, key, () => listeners.forEach((listener) => listener()), { id: key });
    select.show(options);
    if (options.length > 1) document.querySelector(".choices").append(select.node);
  }
}

function showViewer(body) {
  if (!report.cases.length) {
    body.append(legend("No cases were chosen."));
  } else if (typeof DecompressionStream === "undefined") {
    body.append(legend("This browser is too old to show the images: it has no DecompressionStream."));
  } else {
    theViewer = new Viewer();
    body.append(theViewer.node);
    theViewer.open(0);
  }
}

const SECTIONS = {
  means: ["Means", showMeans], plots: ["Box plots", showPlots], scatter: ["Trade-off", showScatter],
  comparisons: ["Comparisons", showComparisons], volumes: ["Volumes", showVolumes], images: ["Images", showViewer],
};
for (const show of [showCounts, showRemarks, showChoices]) show();
for (const [id, [title, show]] of Object.entries(SECTIONS)) {
  const section = element("section", { id, "aria-label": title }, element("h2", {}, title));
  document.querySelector(".links").append(element("a", { href: `#${id}` }, title));
  document.querySelector("main").append(section);
  show(section);
}
