/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers and descriptors of the 8254x family, named as in Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers
 * Software Developer's Manual" (317453), chapters 3 (descriptors) and 13 (registers). Private to e1000.c and its tests.
 */
#ifndef DEV_E1000_REGS_H
#define DEV_E1000_REGS_H

enum {
	CTRL = 0x0000,
	STATUS = 0x0008,
	EECD = 0x0010,
	EERD = 0x0014,
	CTRL_EXT = 0x0018,
	MDIC = 0x0020,
	FCAL = 0x0028,
	FCAH = 0x002c,
	FCT = 0x0030,
	VET = 0x0038,
	ICR = 0x00c0,
	ITR = 0x00c4,
	ICS = 0x00c8,
	IMS = 0x00d0,
	IMC = 0x00d8,
	RCTL = 0x0100,
	FCTTV = 0x0170,
	TXCW = 0x0178,
	RXCW = 0x0180,
	TCTL = 0x0400,
	TIPG = 0x0410,
	AIFS = 0x0458,
	LEDCTL = 0x0e00,
	PBA = 0x1000,
	FCRTL = 0x2160,
	FCRTH = 0x2168,
	RDBAL = 0x2800,
	RDBAH = 0x2804,
	RDLEN = 0x2808,
	RDH = 0x2810,
	RDT = 0x2818,
	RDTR = 0x2820,
	RXDCTL = 0x2828,
	RADV = 0x282c,
	RSRPD = 0x2c00,
	TXDMAC = 0x3000,
	TDBAL = 0x3800,
	TDBAH = 0x3804,
	TDLEN = 0x3808,
	TDH = 0x3810,
	TDT = 0x3818,
	TIDV = 0x3820,
	TXDCTL = 0x3828,
	TADV = 0x382c,
	TSPMT = 0x3830,
	STATISTICS = 0x4000, /* 64 counters, cleared by reading */
	STATISTICS_END = 0x4100,
	RXCSUM = 0x5000,
	MTA = 0x5200,
	MTA_END = 0x5400,
	RAL = 0x5400, /* pairs RAL, RAH, 16 of them */
	RAL_END = 0x5480,
	VFTA = 0x5600,
	VFTA_END = 0x5800,
	WUC = 0x5800,
	WUFC = 0x5808,
	WUS = 0x5810,
	MANC = 0x5820,
	IPAV = 0x5838,
	IP4AT = 0x5840,
	IP4AT_END = 0x5860,
	WUPL = 0x5900,
	WUPM = 0x5a00,
	WUPM_END = 0x5a80,
	REGS_END = 0x5c00,
};

/* Statistics registers that are counted here (13.7) */
enum {
	MPC = 0x4010,
	PRC64 = 0x405c, /* six sizes: 64, 127, 255, 511, 1023, larger */
	GPRC = 0x4074,
	BPRC = 0x4078,
	MPRC = 0x407c,
	GPTC = 0x4080,
	GORCL = 0x4088,
	GOTCL = 0x4090,
	RNBC = 0x40a0,
	RUC = 0x40a4,
	ROC = 0x40ac,
	TORL = 0x40c0,
	TOTL = 0x40c8,
	TPR = 0x40d0,
	TPT = 0x40d4,
	PTC64 = 0x40d8, /* six sizes, as PRC64 */
	MPTC = 0x40f0,
	BPTC = 0x40f4,
	TSCTC = 0x40f8,
};

enum {
	CTRL_FD = 1 << 0,
	CTRL_SLU = 1 << 6,
	CTRL_SPEED_1000 = 2 << 8,
	CTRL_SWDPIN2 = 1 << 20, /* 82543: MDIO data */
	CTRL_SWDPIN3 = 1 << 21, /* 82543: MDIO clock */
	CTRL_SWDPIO2 = 1 << 24, /* 1: the pin is an output of the chip */
	CTRL_RST = 1 << 26,
	CTRL_VME = 1 << 30,
#define CTRL_PHY_RST 0x80000000u

	STATUS_FD = 1 << 0,
	STATUS_LU = 1 << 1,
	STATUS_SPEED_SHIFT = 6, /* 0: 10, 1: 100, 2: 1000 Mb/s */
	STATUS_ASDV_SHIFT = 8,

	EECD_SK = 1 << 0,
	EECD_CS = 1 << 1,
	EECD_DI = 1 << 2,
	EECD_DO = 1 << 3,
	EECD_FWE = 3 << 4,
	EECD_REQ = 1 << 6,
	EECD_GNT = 1 << 7,
	EECD_PRES = 1 << 8,
	EERD_START = 1 << 0,
	EERD_DONE = 1 << 4,
	CTRL_EXT_EE_RST = 1 << 13,

	MDIC_OP_WRITE = 1 << 26,
	MDIC_OP_READ = 2 << 26,
	MDIC_OP = 3 << 26,
	MDIC_READY = 1 << 28,
	MDIC_INTERRUPT = 1 << 29,
	MDIC_ERROR = 1 << 30,

	RCTL_EN = 1 << 1,
	RCTL_UPE = 1 << 3,
	RCTL_MPE = 1 << 4,
	RCTL_LPE = 1 << 5,
	RCTL_LBM = 3 << 6,
	RCTL_RDMTS_SHIFT = 8,
	RCTL_MO_SHIFT = 12,
	RCTL_BAM = 1 << 15,
	RCTL_BSIZE_SHIFT = 16,
	RCTL_VFE = 1 << 18,
	RCTL_CFIEN = 1 << 19,
	RCTL_CFI = 1 << 20,
	RCTL_BSEX = 1 << 25,
	RCTL_SECRC = 1 << 26,

	TCTL_EN = 1 << 1,
	TCTL_PSP = 1 << 3,

	RXCSUM_IPOFL = 1 << 8,
	RXCSUM_TUOFL = 1 << 9,
#define RAH_AV 0x80000000u

	INT_TXDW = 1 << 0,
	INT_TXQE = 1 << 1,
	INT_LSC = 1 << 2,
	INT_RXDMT0 = 1 << 4,
	INT_RXO = 1 << 6,
	INT_RXT0 = 1 << 7,
	INT_MDAC = 1 << 9,
	INT_TXD_LOW = 1 << 15,
	INT_SRPD = 1 << 16,
};

/* Transmit descriptors (3.3): byte 11 is CMD/DCMD, bits 20-23 of the third double word DTYP */
enum {
	TX_EOP = 1 << 0,
	TX_IFCS = 1 << 1,
	TX_IC = 1 << 2, /* legacy */
	TX_TSE = 1 << 2,
	TX_RS = 1 << 3,
	TX_RPS = 1 << 4,
	TX_DEXT = 1 << 5,
	TX_VLE = 1 << 6,
	TX_IDE = 1 << 7,
	TX_DD = 1 << 0,
	TX_TUCMD_TCP = 1 << 0,
	TX_TUCMD_IP = 1 << 1, /* IPv4 */
	TX_POPTS_IXSM = 1 << 0,
	TX_POPTS_TXSM = 1 << 1,
	TX_DTYP_CONTEXT = 0,
	TX_DTYP_DATA = 1,
};

/* Receive descriptors (3.2.3) */
enum {
	RX_DD = 1 << 0,
	RX_EOP = 1 << 1,
	RX_IXSM = 1 << 2,
	RX_VP = 1 << 3,
	RX_TCPCS = 1 << 5,
	RX_IPCS = 1 << 6,
	RX_PIF = 1 << 7,
	RX_TCPE = 1 << 5,
	RX_IPE = 1 << 6,
};

/* M88E1000 PHY (IEEE 802.3 clause 22; Marvell's specific registers from 16 on) */
enum {
	PHY_CTRL = 0,
	PHY_STATUS = 1,
	PHY_ID1 = 2,
	PHY_ID2 = 3,
	PHY_ADVERTISE = 4,
	PHY_PARTNER = 5,
	PHY_EXPANSION = 6,
	PHY_NEXT_PAGE = 7,
	PHY_1000T_CTRL = 9,
	PHY_1000T_STATUS = 10,
	PHY_EXT_STATUS = 15,
	PHY_SPEC_CTRL = 16,
	PHY_SPEC_STATUS = 17,
	PHY_INT_ENABLE = 18,
	PHY_INT_STATUS = 19,
	PHY_EXT_SPEC_CTRL = 20,
	PHY_PAGE = 29,
	PHY_PAGE_DATA = 30,

	PHY_CTRL_RESET = 1 << 15,
	PHY_CTRL_LOOPBACK = 1 << 14,
	PHY_CTRL_SPEED_LOW = 1 << 13,
	PHY_CTRL_AUTONEG = 1 << 12,
	PHY_CTRL_POWER_DOWN = 1 << 11,
	PHY_CTRL_RESTART = 1 << 9,
	PHY_CTRL_FULL_DUPLEX = 1 << 8,
	PHY_CTRL_SPEED_HIGH = 1 << 6,
	PHY_STATUS_AUTONEG_DONE = 1 << 5,
	PHY_STATUS_LINK = 1 << 2,
};

#endif
