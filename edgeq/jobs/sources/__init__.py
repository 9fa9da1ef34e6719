"""Jobs found elsewhere, when their queue runs low."""
