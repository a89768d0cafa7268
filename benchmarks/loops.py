"""The two plain loops that populations are compared with, one network after another."""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


def tutorial(make, x, y, *, batch, networks, epochs, clock):
    """The loop of a beginner's tutorial. Returns the seconds without first epochs."""
    seconds = 0.0
    for seed in range(networks):
        torch.manual_seed(seed)
        model = make().to(x.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        criterion = torch.nn.CrossEntropyLoss()
        dataset = TensorDataset(x.cpu(), y.cpu())
        loader = DataLoader(dataset, batch_size=batch, shuffle=True)
        for epoch in range(epochs + 1):
            if epoch == 1:
                start = clock()
            for inputs, labels in loader:
                inputs, labels = inputs.to(x.device), labels.to(x.device)
                optimizer.zero_grad()
                loss = criterion(model(inputs), labels)
                loss.backward()
                optimizer.step()
        seconds += clock() - start
    return seconds


def tight(make, x, y, *, batch, networks, epochs, clock):
    """The same without a DataLoader: data are tensors, an epoch is a permutation."""
    seconds = 0.0
    for seed in range(networks):
        torch.manual_seed(seed)
        model = make().to(x.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for epoch in range(epochs + 1):
            if epoch == 1:
                start = clock()
            for index in torch.randperm(len(x), device=x.device).split(batch):
                loss = F.cross_entropy(model(x[index]), y[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        seconds += clock() - start
    return seconds
