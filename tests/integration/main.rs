//! The integration tests: they drive the built program from outside.
