(function () {
  "use strict";
  var cards = [].slice.call(document.querySelectorAll("#cards article")), box = document.getElementById("cards-choice");
  cards.forEach(function (card) { var list = card.querySelector("ul"); list.tabIndex = 0; list.setAttribute("aria-label", "Claims of " + card.querySelector("h2").textContent); });
  function field(label, element) {
    var line = document.createElement("label");
    line.textContent = label;
    line.appendChild(element);
    box.appendChild(line);
    element.addEventListener("input", show);
    return element;
  }
  function choice(label, values) {
    var select = document.createElement("select");
    ["all"].concat(values).forEach(function (value) {
      var option = document.createElement("option");
      option.value = value; option.textContent = value.replace(/-/g, " ");
      select.appendChild(option);
    });
    return field(label, select);
  }
  function every(read) {
    return [].concat.apply([], cards.map(read)).filter(function (v, i, all) { return all.indexOf(v) === i; });
  }
  var search = document.createElement("input");
  search.type = "search";
  field("Search", search);
  var chapter = choice("Chapter", every(function (card) { return [card.dataset.chapter]; }));
  var verdict = choice("Verdict", every(function (card) { return card.dataset.verdicts.split(" "); }));
  var count = document.createElement("output");
  box.appendChild(count);
  box.hidden = false;
  function show() {
    var words = search.value.toLowerCase(), left = 0;
    cards.forEach(function (card) {
      var fits = (chapter.value === "all" || card.dataset.chapter === chapter.value) &&
        (verdict.value === "all" || card.dataset.verdicts.split(" ").indexOf(verdict.value) >= 0) &&
        card.textContent.toLowerCase().indexOf(words) >= 0;
      card.hidden = !fits;
      left += fits ? 1 : 0;
    });
    count.textContent = left + " of " + cards.length + " figures";
  }
  show();
})();
