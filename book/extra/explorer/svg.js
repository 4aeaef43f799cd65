var IB = {  // what the pages that draw share
  COLOURS: ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8a8a8a"],
  add: function (found, parent, attributes, text) {
    Object.keys(attributes || {}).forEach(function (k) { found.setAttribute(k, attributes[k]); });
    if (text !== undefined) found.textContent = text;
    parent.appendChild(found);
    return found;
  },
  make: function (tag, parent, attributes, text) {
    return IB.add(document.createElement(tag), parent, attributes, text);
  },
  draw: function (tag, parent, attributes, text) {
    return IB.add(document.createElementNS("http://www.w3.org/2000/svg", tag), parent, attributes, text);
  },
  keep: function (state) {  // in the address, so that it can be shared
    try { history.replaceState(null, "", "#" + state); } catch (error) { location.hash = String(state); }
  }
};
