"""Pure maths on tensors: boxes, edge distributions, deformable sampling."""
