// Everything on the page, from top to bottom.

let theViewer = null;

function showCase(index) {
  theViewer?.open(index);
}

function showViewer() {
  if (!report.cases.length) {
    bodyOf("images").append(element("p", { class: "legend" }, "No cases were chosen."));
  } else if (typeof DecompressionStream === "undefined") {
    bodyOf("images").append(element("p", { class: "legend" }, "This browser is too old to show the images: it has no DecompressionStream."));
  } else {
    theViewer = new Viewer();
    bodyOf("images").append(theViewer.node);
    theViewer.open(0);
  }
}

showCounts();
showRemarks();
showChoices();
showMeans();
showPlots();
showScatter();
showComparisons();
showVolumes();
showViewer();
