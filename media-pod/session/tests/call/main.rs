//! The call machine from outside: scenarios in virtual time, and arbitrary orders of input.

mod any_order;
mod barge_in;
mod control;
mod dead_air;
mod gaps;
mod greeting;
mod limits;
mod loss;
mod over_realtime;
mod recycle;
mod support;
mod tools;
mod turns;
