//! The 8-byte wire form of an instruction.

/// One slot, fields as RFC 9669 section 3.1 lays them out (little-endian).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Insn {
    /// Opcode.
    pub code: u8,
    /// `src << 4 | dst`.
    pub regs: u8,
    /// Signed offset.
    pub off: i16,
    /// Signed immediate.
    pub imm: i32,
}

impl Insn {
    /// From 8 little-endian bytes.
    pub fn from_bytes(b: [u8; 8]) -> Self {
        Self {
            code: b[0],
            regs: b[1],
            off: i16::from_le_bytes([b[2], b[3]]),
            imm: i32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        }
    }
    /// To 8 little-endian bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        let (o, i) = (self.off.to_le_bytes(), self.imm.to_le_bytes());
        [self.code, self.regs, o[0], o[1], i[0], i[1], i[2], i[3]]
    }
    /// Destination register number.
    pub fn dst(self) -> u8 {
        self.regs & 0xf
    }
    /// Source register number.
    pub fn src(self) -> u8 {
        self.regs >> 4
    }
}
