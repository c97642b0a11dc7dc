"""How far a judge can be believed: pairs that people judged, agreement, the card."""
