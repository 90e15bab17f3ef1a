"""What one wants to see after training: a run's curves, and where its detector goes wrong.

First plain values (`matches`, `confidence`, `confusion`, `errors`, `sizes`, `calibration`,
`choosing`), then what is drawn of them (`figures`, `pictures`), then the `page`.
"""
