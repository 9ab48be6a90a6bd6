//! The engine against a machine of mocks.

mod events;
mod judging;
mod order;
mod random;
mod schedulers;
mod teardown;
mod validation;
