import torch
def match(spec, dataset):
    place={n:i for i,n in enumerate(dataset.class_names)}
    return torch.tensor([place.get(n,-1) for n in spec.class_names])
