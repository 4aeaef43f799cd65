(function () {
  "use strict";
  var make = IB.make, draw = IB.draw, W = 620, LEFT = 76, RIGHT = 16, TOP = 14, BOTTOM = 50;
  var root = document.getElementById("explorer"), status = document.getElementById("explorer-status");
  if (typeof SIZES === "undefined") {
    status.textContent = "There is nothing to show: explorer/sizes_data.js is missing. " +
      "`make study` or `make thesis` builds the book with its tables.";
    return;
  }
  var said = SIZES.missing.length ? "Left out: " + SIZES.missing.join("; ") + ". " : "";
  var state = new URLSearchParams(location.hash.slice(1)), panels = [];

  function Panel(kind, title, keys, draws) {  // a choice of networks, a drawing, and what its chosen part says
    var held = SIZES[kind], self = this;
    if (!held.length) return;
    panels.push(this);
    this.kind = kind; this.keys = keys; this.draws = draws; this.place = [0, 0];
    var box = make("fieldset", root);
    make("legend", box, {}, title);
    var line = make("label", box);
    make("span", line, {}, "network");
    this.select = make("select", line, { "aria-label": title + ", network" });
    held.forEach(function (panel) { make("option", self.select, { value: panel.name }, panel.name); });
    var asked = state.get(kind), names = held.map(function (panel) { return panel.name; });
    if (asked !== null && names.indexOf(asked) < 0) said += "The address names a network that is not here (" + asked + "): another one is shown. ";
    else if (asked !== null) this.select.value = asked;
    this.select.addEventListener("change", function () { self.place = [0, 0]; self.draw(); keep(); });
    this.note = make("p", box, { "class": "stand-in" });
    this.svg = draw("svg", box, { tabindex: "0", role: "application" });
    this.text = make("output", box, { "aria-live": "polite" });
    this.svg.addEventListener("keydown", function (event) {
      var across = { ArrowLeft: -1, ArrowRight: 1 }[event.key], down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (across) self.place[1] += across;
      if (down) self.place[0] += down;
      if (across || down) { event.preventDefault(); self.draw(); }
    });
    ["pointermove", "pointerdown"].forEach(function (name) {
      self.svg.addEventListener(name, function (event) { self.point(event); });
    });
    this.draw();
  }
  Panel.prototype.draw = function () {
    var name = this.select.value, self = this;
    this.panel = SIZES[this.kind].filter(function (panel) { return panel.name === name; })[0];
    this.svg.textContent = ""; this.spots = [];
    this.svg.setAttribute("aria-label", this.panel.name + ". " + this.keys);
    this.note.textContent = this.panel.source ? "stand-in data: " + this.panel.source : "";
    this.draws(this);
    this.text.textContent += " Mean of " + this.panel.runs + (this.panel.runs === 1 ? " seed. " : " seeds. ");
    var link = make("a", this.text, { href: this.panel.page }, "The chapter");
    link.setAttribute("aria-label", "The chapter of " + self.kind);
  };
  Panel.prototype.point = function (event) {
    var frame = this.svg.getBoundingClientRect(), scale = W / frame.width, best = 900, found = null;
    var x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    this.spots.forEach(function (spot) {
      var d = spot.x === null ? (Math.abs(spot.y - y) < 16 ? 0 : 1e6) : Math.pow(spot.x - x, 2) + Math.pow(spot.y - y, 2);
      if (d < best) { best = d; found = spot.place; }
    });
    if (found && String(found) !== String(this.place)) { this.place = found; this.draw(); }
  };
  function keep() {
    var held = new URLSearchParams();
    panels.forEach(function (panel) { held.set(panel.kind, panel.select.value); });
    IB.keep(held);
  }
  function wrap(value, count) { return (value % count + count) % count; }
  function logarithmic(low, high) {  // from a value to a place, with the ticks of its axis
    var span = Math.log(high / low), ticks = [];
    for (var power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      (span < 3 ? [1, 2, 5] : [1]).forEach(function (n) {
        var tick = n * Math.pow(10, power);
        if (tick >= low && tick <= high) ticks.push(tick);
      });
    }
    return { ticks: ticks, at: function (v) { return LEFT + Math.log(v / low) / span * (W - LEFT - RIGHT); } };
  }
  function frame(self, height, scale, label) {
    self.svg.setAttribute("viewBox", "0 0 " + W + " " + height);
    draw("path", self.svg, { "class": "axis", d: "M" + LEFT + " " + TOP + "V" + (height - BOTTOM) + "H" + (W - RIGHT) });
    scale.ticks.forEach(function (tick) {
      draw("text", self.svg, { x: scale.at(tick), y: height - BOTTOM + 18, "text-anchor": "middle" }, String(Number(tick.toPrecision(3))));
    });
    draw("text", self.svg, { x: (W + LEFT) / 2, y: height - 6, "text-anchor": "middle" }, label);
  }

  function layers(self) {
    var rows = self.panel.layers, height = TOP + BOTTOM + 46 * rows.length;
    var most = Math.max.apply(null, rows.map(function (row) { return Math.max(row.units, row.width); }));
    var scale = logarithmic(0.8, 1.3 * most);
    frame(self, height, scale, "units or directions");
    self.place[0] = wrap(self.place[0] + self.place[1], rows.length); self.place[1] = 0;
    rows.forEach(function (row, place) {
      var y = TOP + 46 * place + 23;
      [["units", 17, "bar-units"], ["directions", 11, "bar-directions"], ["needed", 5, "bar-needed"]].forEach(function (bar) {
        var end = scale.at(Math.max(row[bar[0]], 0.8));
        draw("rect", self.svg, { "class": bar[2], x: LEFT, y: y - bar[1], width: Math.max(end - LEFT, 1), height: 2 * bar[1] });
      });
      var x = scale.at(row.width);
      draw("path", self.svg, { "class": "mark", d: "M" + (x - 7) + " " + y + "l7 -7 7 7 -7 7Z" });
      var chosen = place === self.place[0];
      draw("text", self.svg, { x: LEFT - 6, y: y + 5, "text-anchor": "end", "class": chosen ? "chosen" : "" }, row.layer);
      self.spots.push({ x: null, y: y, place: [place, 0] });
    });
    var row = rows[self.place[0]];
    self.text.textContent = row.layer + ": " + row.verdict + (row.confidence === null ? ". " : ", sure to " + Math.round(100 * row.confidence) + " %. ") + row.units + " units; 99 % of the variance in " +
      row.directions + " directions; the answer needs " + row.needed + ". Width to try: " + row.width + ".";
  }

  function files(self) {
    var p = self.panel, height = 380;
    var groups = p.lines.concat([{ name: "techniques", points: p.techniques }]);
    var all = [].concat.apply([], groups.map(function (g) { return g.points; }));
    var sizes = all.map(function (v) { return v[1]; }).concat(p.memory), rights = all.map(function (v) { return v[2]; });
    var scale = logarithmic(0.8 * Math.min.apply(null, sizes), 1.25 * Math.max.apply(null, sizes));
    var low = Math.min.apply(null, rights), span = Math.max.apply(null, rights) - low || 1;
    function y(v) { return height - BOTTOM - 8 - (v - low) / span * (height - BOTTOM - TOP - 24); }
    frame(self, height, scale, "file in kB");
    draw("text", self.svg, { x: 16, y: height / 2, transform: "rotate(-90 16 " + height / 2 + ")", "text-anchor": "middle" }, "test accuracy");
    for (var i = 0; i <= 4; i += 1) draw("text", self.svg, { x: LEFT - 6, y: y(low + span * i / 4) + 5, "text-anchor": "end" }, (low + span * i / 4).toFixed(span < 0.1 ? 3 : 2));
    draw("path", self.svg, { "class": "axis", "stroke-dasharray": "2 4", d: "M" + LEFT + " " + y(p.before) + "H" + (W - RIGHT) });
    var left = LEFT + 8;
    groups.forEach(function (group, g) {
      if (g < groups.length - 1) draw("circle", self.svg, { cx: left, cy: TOP + 2, r: 6, fill: IB.COLOURS[g] });
      else draw("rect", self.svg, { x: left - 6, y: TOP - 4, width: 12, height: 12, fill: IB.COLOURS[6] });
      draw("text", self.svg, { x: left + 11, y: TOP + 7 }, group.name);
      left += 34 + 8.2 * group.name.length;
    });
    self.place[0] = wrap(self.place[0], groups.length);
    self.place[1] = wrap(self.place[1], groups[self.place[0]].points.length);
    var front = null;  // the chosen point is drawn over all others
    groups.forEach(function (group, g) {
      var single = g === groups.length - 1, colour = single ? IB.COLOURS[6] : IB.COLOURS[g];
      if (!single) draw("path", self.svg, { "class": "way", stroke: colour, d: "M" + group.points.map(function (v) { return scale.at(v[1]).toFixed(1) + " " + y(v[2]).toFixed(1); }).join("L") });
      group.points.forEach(function (v, n) {
        var here = g === self.place[0] && n === self.place[1], at = { x: scale.at(v[1]), y: y(v[2]) };
        var spot = draw(single ? "rect" : "circle", self.svg, single ?
          { "class": "dot" + (here ? " chosen" : ""), x: at.x - 6, y: at.y - 6, width: 12, height: 12, fill: colour } :
          { "class": "dot" + (here ? " chosen" : ""), cx: at.x, cy: at.y, r: 7, fill: colour });
        self.spots.push({ x: at.x, y: at.y, place: [g, n] });
        if (here) front = spot;
      });
    });
    self.svg.appendChild(front);
    var group = groups[self.place[0]], v = group.points[self.place[1]];
    var name = self.place[0] === groups.length - 1 ? v[0] : group.name + ", step 2^" + v[0];
    self.text.textContent = name + ": " + v[1] + " kB, " + (p.memory / v[1]).toFixed(1) + " times smaller than in float32; test accuracy " +
      v[2].toFixed(4) + ", before " + p.before.toFixed(4) + ".";
  }

  new Panel("layers", "Layers", "Up and down change the layer.", layers);
  new Panel("files", "Files", "Left and right change the step or technique, up and down the way to round.", files);
  status.textContent = said;
  root.setAttribute("data-ready", "yes");
})();
