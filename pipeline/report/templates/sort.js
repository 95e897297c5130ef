// Tables of class "sortable": a click on a heading sorts by that column, a second click turns the order round.
document.querySelectorAll("table.sortable").forEach(function (table) {
  const body = table.tBodies[0];
  const headings = table.tHead.rows[table.tHead.rows.length - 1].cells;
  const key = function (row, place) {
    const text = row.cells[place].textContent.trim().replace(/−/g, "-").replace(/,/g, "");
    const number = parseFloat(text);
    return text === "–" || text === "" ? [2, 0, ""] : Number.isNaN(number) ? [1, 0, text] : [0, number, text];
  };
  const compare = function (a, b) {
    return a[0] - b[0] || a[1] - b[1] || a[2].localeCompare(b[2]);
  };
  Array.from(headings).forEach(function (heading, place) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", function () {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      Array.from(headings).forEach(function (other) { other.removeAttribute("aria-sort"); });
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = Array.from(body.rows).map(function (row) { return [key(row, place), row]; });
      rows.sort(function (a, b) { return up ? compare(a[0], b[0]) : compare(b[0], a[0]); });
      body.append(...rows.map(function (pair) { return pair[1]; }));
    });
  });
});
