"""A conformance and fault harness for webhook servers: it knows a server by HTTP, its processes and scripted receivers only."""
