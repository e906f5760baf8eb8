"""How good detections are: the WIDER FACE protocol, and COCO's."""
