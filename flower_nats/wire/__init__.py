"""Facts about Flower's wire: .proto files, generated code, conversions."""
