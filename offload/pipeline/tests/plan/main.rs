//! The planner from outside: objects in, rows and shape out.

mod acl;
mod equivalence;
mod inbound;
mod limits;
mod meter;
mod moves;
mod named;
mod resim;
mod rows;
mod shape;
mod support;
mod transforms;
mod underlay;
