//! Tokens to instructions.

use super::token::{Token, tokens};
use super::{AsmErrorKind, Field, Parse, Target, fit};
use crate::decode::GOTOL;
use crate::encode::encode;
use crate::insn::Insn;
use crate::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};

#[derive(Debug)]
pub(super) struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

/// An instruction and, if it jumps, where to.
pub(super) type Parsed = (Vec<Insn>, Option<(Field, Target)>);

fn plain(op: Op) -> Parse<Parsed> {
    Ok((encode(&op, 0)?.as_slice().to_vec(), None))
}

impl Parser {
    pub(super) fn new(line: &str) -> Parse<Self> {
        Ok(Self {
            tokens: tokens(line)?,
            next: 0,
        })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn peek_after(&self) -> Option<&Token> {
        self.tokens.get(self.next + 1)
    }

    pub(super) fn at_end(&self) -> bool {
        self.peek().is_none()
    }

    pub(super) fn expected(&self, expected: &'static str) -> AsmErrorKind {
        let found = match self.peek() {
            None => "end of line".to_owned(),
            Some(Token::Word(w)) => format!("{w:?}"),
            Some(Token::Number(n)) => n.to_string(),
            Some(Token::Sign(s)) => format!("{s:?}"),
        };
        AsmErrorKind::Expected { expected, found }
    }

    fn eat(&mut self, sign: &'static str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.next += usize::from(hit);
        hit
    }

    fn need(&mut self, sign: &'static str) -> Parse<()> {
        if self.eat(sign) {
            Ok(())
        } else {
            Err(self.expected(sign))
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Word(w)) if w == word);
        self.next += usize::from(hit);
        hit
    }

    fn word(&mut self, expected: &'static str) -> Parse<String> {
        match self.peek() {
            Some(Token::Word(w)) => {
                let w = w.clone();
                self.next += 1;
                Ok(w)
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn sign(&mut self, expected: &'static str) -> Parse<&'static str> {
        match self.peek() {
            Some(Token::Sign(s)) => {
                let s = *s;
                self.next += 1;
                Ok(s)
            }
            _ => Err(self.expected(expected)),
        }
    }

    /// `name:` at the start of what is left.
    pub(super) fn label(&mut self) -> Option<String> {
        match (self.peek(), self.peek_after()) {
            (Some(Token::Word(name)), Some(Token::Sign(":"))) => {
                let name = name.clone();
                self.next += 2;
                Some(name)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Parse<i128> {
        let minus = self.eat("-");
        if !minus {
            self.eat("+");
        }
        match self.peek() {
            Some(Token::Number(n)) => {
                let n = if minus { -*n } else { *n };
                self.next += 1;
                Ok(n)
            }
            _ => Err(self.expected("a number")),
        }
    }

    fn int<T: TryFrom<i128>>(&mut self, field: &'static str) -> Parse<T> {
        fit(self.number()?, field)
    }

    fn at_reg(&self) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if register(w).is_some())
    }

    fn reg(&mut self) -> Parse<(Width, Reg)> {
        match self.peek() {
            Some(Token::Word(w)) => match register(w) {
                Some(r) => {
                    self.next += 1;
                    Ok(r)
                }
                None => Err(self.expected("a register")),
            },
            _ => Err(self.expected("a register")),
        }
    }

    fn reg_of(&mut self, width: Width) -> Parse<Reg> {
        let (w, r) = self.reg()?;
        if w == width {
            Ok(r)
        } else {
            Err(AsmErrorKind::Mismatch("operands are of different width"))
        }
    }

    /// A register of this width, or an immediate: 32 bits signed, or hex of 32 bits.
    fn operand(&mut self, width: Width) -> Parse<Operand> {
        if self.at_reg() {
            return Ok(Operand::Reg(self.reg_of(width)?));
        }
        Ok(Operand::Imm(self.imm32()?))
    }

    fn imm32(&mut self) -> Parse<i32> {
        self.int("a signed 32-bit immediate")
    }

    fn target(&mut self) -> Parse<Target> {
        match self.peek() {
            Some(Token::Word(name)) => {
                let name = name.clone();
                self.next += 1;
                Ok(Target::Label(name))
            }
            _ => Ok(Target::By(self.int("a jump")?)),
        }
    }

    /// `(u32 *)`: signedness and size.
    fn cast(&mut self) -> Parse<(bool, Size)> {
        self.need("(")?;
        let word = self.word("a type")?;
        let kind = match word.as_str() {
            "u8" => (false, Size::B),
            "u16" => (false, Size::H),
            "u32" => (false, Size::W),
            "u64" => (false, Size::Dw),
            "s8" => (true, Size::B),
            "s16" => (true, Size::H),
            "s32" => (true, Size::W),
            _ => {
                self.next -= 1;
                return Err(self.expected("u8, u16, u32, u64, s8, s16 or s32"));
            }
        };
        self.need("*")?;
        self.need(")")?;
        Ok(kind)
    }

    /// `r1 + 4`.
    fn place(&mut self) -> Parse<(Reg, i16)> {
        let base = self.reg_of(Width::W64)?;
        let off = match self.peek() {
            Some(Token::Sign("+" | "-")) => self.int("a 16-bit offset")?,
            _ => 0,
        };
        Ok((base, off))
    }

    fn place_in_parens(&mut self) -> Parse<(Reg, i16)> {
        self.need("(")?;
        let place = self.place()?;
        self.need(")")?;
        Ok(place)
    }

    pub(super) fn instruction(&mut self) -> Parse<Parsed> {
        if self.at_reg() {
            return self.assignment();
        }
        if self.eat("*") {
            return self.store();
        }
        if self.eat(".") {
            return self.raw();
        }
        match self.word("an instruction")?.as_str() {
            "exit" => plain(Op::Exit),
            "goto" => {
                let target = self.target()?;
                let insn = Insn {
                    code: 0x05,
                    ..Insn::default()
                };
                Ok((vec![insn], Some((Field::Off, target))))
            }
            "gotol" => {
                let target = self.target()?;
                let insn = Insn {
                    code: GOTOL,
                    ..Insn::default()
                };
                Ok((vec![insn], Some((Field::Imm, target))))
            }
            "if" => self.branch(),
            "call" => self.call(),
            "callx" => {
                let reg = self.reg_of(Width::W64)?;
                plain(Op::CallReg { reg })
            }
            "lock" => self.lock(),
            _ => {
                self.next -= 1;
                Err(self.expected("an instruction"))
            }
        }
    }

    fn raw(&mut self) -> Parse<Parsed> {
        if !self.eat_word("insn") {
            return Err(self.expected("insn"));
        }
        let insn = Insn {
            code: self.int("an opcode")?,
            regs: self.int("a register byte")?,
            off: self.int("a 16-bit offset")?,
            imm: self.imm32()?,
        };
        Ok((vec![insn], None))
    }

    fn branch(&mut self) -> Parse<Parsed> {
        let (width, dst) = self.reg()?;
        let cond = match self.sign("a condition")? {
            "==" => Cond::Eq,
            "!=" => Cond::Ne,
            "&" => Cond::Set,
            ">" => Cond::Gt,
            ">=" => Cond::Ge,
            "<" => Cond::Lt,
            "<=" => Cond::Le,
            "s>" => Cond::Sgt,
            "s>=" => Cond::Sge,
            "s<" => Cond::Slt,
            "s<=" => Cond::Sle,
            _ => {
                self.next -= 1;
                return Err(self.expected("a condition"));
            }
        };
        let src = self.operand(width)?;
        if !self.eat_word("goto") {
            return Err(self.expected("goto"));
        }
        let target = self.target()?;
        let (insns, _) = plain(Op::JumpIf {
            width,
            cond,
            dst,
            src,
            target: 1,
        })?;
        Ok((insns, Some((Field::Off, target))))
    }

    fn call(&mut self) -> Parse<Parsed> {
        if self.eat_word("btf") {
            let id = self.imm32()?;
            return plain(Op::CallBtf { id });
        }
        let (target, local) = match self.peek() {
            Some(Token::Word(w)) if w == "pc" => {
                self.next += 1;
                (Some(Target::By(self.int("a call")?)), true)
            }
            Some(Token::Word(_)) => (Some(self.target()?), true),
            _ => (None, false),
        };
        if !local {
            let helper = self.int("a helper number")?;
            return plain(Op::Call { helper });
        }
        let (insns, _) = plain(Op::CallLocal { target: 1 })?;
        Ok((insns, target.map(|t| (Field::Imm, t))))
    }

    fn store(&mut self) -> Parse<Parsed> {
        let (signed, size) = self.cast()?;
        if signed {
            return Err(AsmErrorKind::Mismatch("stores are unsigned"));
        }
        let (base, off) = self.place_in_parens()?;
        self.need("=")?;
        let src = if self.at_reg() {
            // The 32-bit name is the same register: a store has its own width.
            Operand::Reg(self.reg()?.1)
        } else {
            Operand::Imm(self.imm32()?)
        };
        plain(Op::Store {
            size,
            base,
            off,
            src,
        })
    }

    fn lock(&mut self) -> Parse<Parsed> {
        self.need("*")?;
        let (_, size) = self.cast()?;
        let (base, off) = self.place_in_parens()?;
        let op = match self.sign("an operation")? {
            "+=" => AtomicOp::Add,
            "|=" => AtomicOp::Or,
            "&=" => AtomicOp::And,
            "^=" => AtomicOp::Xor,
            _ => {
                self.next -= 1;
                return Err(self.expected("+=, |=, &= or ^="));
            }
        };
        let src = self.reg()?.1;
        plain(Op::Atomic {
            size,
            op,
            fetch: false,
            base,
            off,
            src,
        })
    }

    /// Everything that starts with a register.
    fn assignment(&mut self) -> Parse<Parsed> {
        let (width, dst) = self.reg()?;
        let op = match self.sign("an operation")? {
            "=" => return self.assign(width, dst),
            "+=" => AluOp::Add,
            "-=" => AluOp::Sub,
            "*=" => AluOp::Mul,
            "/=" => AluOp::Div,
            "s/=" => AluOp::Sdiv,
            "|=" => AluOp::Or,
            "&=" => AluOp::And,
            "<<=" => AluOp::Lsh,
            ">>=" => AluOp::Rsh,
            "%=" => AluOp::Mod,
            "s%=" => AluOp::Smod,
            "^=" => AluOp::Xor,
            "s>>=" => AluOp::Arsh,
            _ => {
                self.next -= 1;
                return Err(self.expected("an operation"));
            }
        };
        let src = self.operand(width)?;
        plain(Op::Alu {
            width,
            op,
            dst,
            src,
        })
    }

    fn assign(&mut self, width: Width, dst: Reg) -> Parse<Parsed> {
        if self.at_reg() {
            let src = Operand::Reg(self.reg_of(width)?);
            return plain(Op::Alu {
                width,
                op: AluOp::Mov,
                dst,
                src,
            });
        }
        if self.eat("*") {
            return self.load(dst);
        }
        if self.eat("(") {
            let op = match self.word("s8, s16 or s32")?.as_str() {
                "s8" => AluOp::Movsx8,
                "s16" => AluOp::Movsx16,
                "s32" => AluOp::Movsx32,
                _ => {
                    self.next -= 1;
                    return Err(self.expected("s8, s16 or s32"));
                }
            };
            self.need(")")?;
            let src = Operand::Reg(self.reg_of(width)?);
            return plain(Op::Alu {
                width,
                op,
                dst,
                src,
            });
        }
        if self.peek() == Some(&Token::Sign("-"))
            && matches!(self.peek_after(), Some(Token::Word(_)))
        {
            self.next += 1;
            if self.reg_of(width)? != dst {
                return Err(AsmErrorKind::Mismatch("negation is in place"));
            }
            return plain(Op::Neg { width, dst });
        }
        if let Some(Token::Word(word)) = self.peek() {
            let word = word.clone();
            self.next += 1;
            return self.named(&word, width, dst);
        }
        let value = self.number()?;
        if self.eat_word("ll") {
            let value = u64::try_from(value)
                .or_else(|_| i64::try_from(value).map(|v| v as u64))
                .map_err(|_| AsmErrorKind::Range {
                    value,
                    field: "64 bits",
                })?;
            return self.imm64(width, dst, Imm64::Value(value));
        }
        let imm = fit(value, "a signed 32-bit immediate")?;
        plain(Op::Alu {
            width,
            op: AluOp::Mov,
            dst,
            src: Operand::Imm(imm),
        })
    }

    fn imm64(&mut self, width: Width, dst: Reg, imm: Imm64) -> Parse<Parsed> {
        if width == Width::W32 {
            return Err(AsmErrorKind::Mismatch(
                "64-bit immediate into a 32-bit register",
            ));
        }
        plain(Op::LoadImm64 { dst, imm })
    }

    fn load(&mut self, dst: Reg) -> Parse<Parsed> {
        let (signed, size) = self.cast()?;
        if self.eat_word("skb") {
            if dst != Reg::R0 {
                return Err(AsmErrorKind::Mismatch("packet access loads r0"));
            }
            self.need("[")?;
            let (index, imm) = if self.at_reg() {
                let index = self.reg_of(Width::W64)?;
                let imm = match self.peek() {
                    Some(Token::Sign("+" | "-")) => self.imm32()?,
                    _ => 0,
                };
                (Some(index), imm)
            } else {
                (None, self.imm32()?)
            };
            self.need("]")?;
            return plain(Op::LoadPacket { size, index, imm });
        }
        let (base, off) = self.place_in_parens()?;
        plain(Op::Load {
            size,
            signed,
            dst,
            base,
            off,
        })
    }

    /// `dst = word ...`.
    fn named(&mut self, word: &str, width: Width, dst: Reg) -> Parse<Parsed> {
        let endian = [
            (Endian::Le, "le"),
            (Endian::Be, "be"),
            (Endian::Swap, "bswap"),
        ];
        for (order, name) in endian {
            let bits = word.strip_prefix(name).and_then(|bits| bits.parse().ok());
            if let Some(bits) = bits {
                if self.reg()?.1 != dst {
                    return Err(AsmErrorKind::Mismatch("byte order changes in place"));
                }
                return plain(Op::Endian { order, bits, dst });
            }
        }
        match word {
            "map" => {
                let map = self.index()?;
                self.ll()?;
                self.imm64(width, dst, Imm64::Map(map))
            }
            "value" => {
                self.need("(")?;
                if !self.eat_word("map") {
                    return Err(self.expected("map"));
                }
                let map = self.index()?;
                self.need(")")?;
                self.need("+")?;
                let offset = self.int("a 32-bit offset")?;
                self.ll()?;
                self.imm64(width, dst, Imm64::MapValue { map, offset })
            }
            "imm64" => {
                self.need("(")?;
                let src = self.int("a kind of immediate")?;
                self.need(",")?;
                let imm = self.imm32()?;
                self.need(",")?;
                let next = self.imm32()?;
                self.need(")")?;
                self.ll()?;
                self.imm64(width, dst, Imm64::Other { src, imm, next })
            }
            "xchg_64" | "xchg32_32" => {
                self.need("(")?;
                self.exchange(word.ends_with("64"), AtomicOp::Xchg, dst)
            }
            "cmpxchg_64" | "cmpxchg32_32" => {
                self.need("(")?;
                self.exchange(word.ends_with("64"), AtomicOp::CmpXchg, dst)
            }
            _ => match word.strip_prefix("atomic_fetch_") {
                Some(name) => self.fetch(name, dst),
                None => {
                    self.next -= 1;
                    Err(self.expected("a value"))
                }
            },
        }
    }

    /// `[3]`.
    fn index(&mut self) -> Parse<u32> {
        self.need("[")?;
        let index = self.int("a map index")?;
        self.need("]")?;
        Ok(index)
    }

    fn ll(&mut self) -> Parse<()> {
        if self.eat_word("ll") {
            Ok(())
        } else {
            Err(self.expected("ll"))
        }
    }

    /// `r1 + 0, r2)` or, comparing, `r1 + 0, r0, r2)`.
    fn exchange(&mut self, wide: bool, op: AtomicOp, dst: Reg) -> Parse<Parsed> {
        let (base, off) = self.place()?;
        self.need(",")?;
        let mut src = self.reg()?.1;
        if op == AtomicOp::CmpXchg {
            if src != Reg::R0 || dst != Reg::R0 {
                return Err(AsmErrorKind::Mismatch(
                    "compare-and-exchange compares and loads r0",
                ));
            }
            self.need(",")?;
            src = self.reg()?.1;
        } else if src != dst {
            return Err(AsmErrorKind::Mismatch(
                "exchange loads the register it stores",
            ));
        }
        self.need(")")?;
        let size = if wide { Size::Dw } else { Size::W };
        plain(Op::Atomic {
            size,
            op,
            fetch: true,
            base,
            off,
            src,
        })
    }

    /// `((u64 *)(r1 + 0), r2)`.
    fn fetch(&mut self, name: &str, dst: Reg) -> Parse<Parsed> {
        let op = match name {
            "add" => AtomicOp::Add,
            "or" => AtomicOp::Or,
            "and" => AtomicOp::And,
            "xor" => AtomicOp::Xor,
            _ => return Err(self.expected("atomic_fetch_add, _or, _and or _xor")),
        };
        self.need("(")?;
        let (_, size) = self.cast()?;
        let (base, off) = self.place_in_parens()?;
        self.need(",")?;
        let src = self.reg()?.1;
        if src != dst {
            return Err(AsmErrorKind::Mismatch("fetch loads the register it adds"));
        }
        self.need(")")?;
        plain(Op::Atomic {
            size,
            op,
            fetch: true,
            base,
            off,
            src,
        })
    }
}

/// `r3`, `w3`.
fn register(word: &str) -> Option<(Width, Reg)> {
    let (width, digits) = match (word.strip_prefix('r'), word.strip_prefix('w')) {
        (Some(d), _) => (Width::W64, d),
        (_, Some(d)) => (Width::W32, d),
        _ => return None,
    };
    let plain = digits == "0" || !digits.starts_with('0');
    let n: u8 = digits.parse().ok()?;
    Reg::new(n).filter(|_| plain).map(|r| (width, r))
}
