"""Which frequency table codes which symbol, and the coder itself.

The words of this package, each with one meaning:

plane           symbols coded one after the other, under one table or a table for each (codec.decoder.build_tensor)
form            the numbers in the header that say how the planes of a tensor are shaped and coded
matrix          int8 (rows, columns): the levels of a tensor, or the highest bytes of a plain one
group           matrices that share frequency tables
class           number of a row segment or column, which chooses the table of its levels: the field's context
contexts        the classes of one matrix
side information  planes that the decoder needs before the levels: classes, and which rows are predicted from which
lane            one of the interleaved rANS streams
"""
