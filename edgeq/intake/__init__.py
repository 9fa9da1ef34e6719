"""From a delivery to an acknowledgement: router, controllers, one commit."""
