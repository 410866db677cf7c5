"""Flame graphs."""

from xml.etree import ElementTree

from benchmarks.svg import WIDTH, Flame, flame_graph

SVG = "{http://www.w3.org/2000/svg}"


def test_frames_are_as_wide_as_they_were_seen_often() -> None:
    root = Flame()
    for stack in (["step", "decode"], ["step", "decode"], ["step"], ["<idle>"]):
        root.add(stack)
    frames = ElementTree.fromstring(flame_graph("all of it", root)).iter(f"{SVG}g")
    found = ((frame.findtext(f"{SVG}title"), frame.find(f"{SVG}rect")) for frame in frames)
    widths = {title: float(box.attrib["width"]) for title, box in found if box is not None}
    assert widths["step: 75.0 %"] == 0.75 * WIDTH - 0.5
    assert widths["decode: 50.0 %"] == 0.5 * WIDTH - 0.5
