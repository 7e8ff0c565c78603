//! Choice of chains as tables, and listeners on the loopback interface.

mod choice;
mod loopback;
