// Sorts a table by the column whose head is clicked; failed rows stay at the end.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const table = head.closest("table");
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = (row) => {
      const text = row.cells[head.cellIndex]?.dataset.sort ?? "";
      return text === "" || isNaN(text) ? text : Number(text);
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return (x > y ? 1 : x < y ? -1 : 0) * (ascending ? 1 : -1);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  });
}
