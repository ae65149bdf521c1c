//! `switchboard-sim`: simulated Twilio, simulated model and callers. This file only wires.

fn main() {}
