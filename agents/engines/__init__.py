"""What model servers say of themselves: read by the metrics that they have anyway, one reading for each report."""
