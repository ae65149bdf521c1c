//! The phone network and the speech model, simulated: everything Switchboard talks to, on one machine without accounts.
//!
//! Both sides are strict: they refuse what the real services would refuse, and what the product does against a published
//! rule is recorded in [`violations`] and fails the run. Nothing here uses the product's own code: an independent reading
//! of the protocols is what makes a green run mean something.

pub mod caller;
pub mod carrier;
pub mod faults;
pub mod load;
pub mod model;
pub mod relay;
pub mod scenario;
pub mod violations;
pub mod voice;
