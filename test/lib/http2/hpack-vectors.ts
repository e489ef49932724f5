/** RFC 7541, C.5: answers without Huffman coding, with a table of 256 bytes. */
export const ANSWERS_C5: readonly string[] = [
  `4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54
   6e1768747470733a2f2f7777772e6578616d706c652e636f6d`,
  '4803333037c1c0bf',
  `88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41
   53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f
   6e3d31`,
]

/** The Huffman code (RFC 7541, appendix B) of the bytes 0 to 255 in order, as python-hyper/hpack 4.2 has it; base64. */
export const EVERY_BYTE_CODED = [
  '/8f//Y///+L///4////k///+X///5v///n///+j//+r////z///6f///q////9///+v///7P///t///+7///7////w////H/',
  '//8v////v///z////T///9f///2////f///+P///5////r///+1P4/n/r/yr8f6/r+/n/f0suwAImWm3HXn7n3//IP+/8/9Q',
  '3b1/BhxY8mXNn0adWvZt3b+HHl+c/3/3//w/+f/kX/9HGSQss05unWimo9faxCbe/jz69//7/n/7/9////z//m//9L//n//6',
  'P//T//9T//1f//s//+t//9r//7f//3P//u///e///r//+////Z///b//6///4P//7v//w///i///H//+T//uf/+x//+X//2f',
  '//zf//n///v//9r//u//9P//t//+5//+j//9P//e///V//7v//vf//4f/9///3///1///s//8H//h//+D//xf//t//+H//93',
  '//7//+r//4v//j//+T//+H//y///N///H///g///4f/+v//j//8///8v//o///2f//8X///H///yf//97///v///8v//+P//',
  '+3//l//4///+b///wf//+H///n///8X//+X//k//8v///R///0////7///4////J///5f/+z///P//t//83//0//+f//0f//',
  'z//+r//6///93//+////T///X///q///p///1///+b///s///7f///P///6P///T///6v///X////3///s///9v///u///9/',
  '///w///7vw==',
].join('')
