(function () {
  "use strict";
  [].forEach.call(document.querySelectorAll("table.ledger"), function (table) {
    [].forEach.call(table.tHead.rows[0].cells, function (head, place) {
      var button = document.createElement("button"), order = 1;
      button.type = "button";
      button.textContent = head.textContent;
      button.title = "Sort by " + head.textContent.toLowerCase();
      button.style.cssText = "background: none; border: 0; padding: 0; color: inherit; font: inherit; text-align: left; text-decoration: underline dotted;";
      head.textContent = "";
      head.appendChild(button);
      button.addEventListener("click", function () {
        var body = table.tBodies[0], rows = [].slice.call(body.rows);
        rows.sort(function (a, b) {
          return order * a.cells[place].textContent.trim().localeCompare(b.cells[place].textContent.trim(), "en", { numeric: true });
        });
        rows.forEach(function (row) { body.appendChild(row); });
        [].forEach.call(table.tHead.rows[0].cells, function (cell) { cell.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
        order = -order;
      });
    });
  });
})();
