"""Box algebra: anchors, coding, suppression. Boxes are xyxy in pixels unless a name differs."""
