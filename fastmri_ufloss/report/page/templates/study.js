// The data of a reader's page, under the name that canvas.js expects.

const report = JSON.parse(document.getElementById("study").textContent);
