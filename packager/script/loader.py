"""The Python text inside a packed script that starts the script it is packed with.

It is the first part of the payload, compressed with the rest.  The code before it leaves two names, S (the parts of the
payload) and perhaps c; the loader takes them away, so that the script finds its namespace as if it ran by itself.

- A script runs in the file's own namespace, so that torchrun, spawn and runpy.run_path find what they seek.
- A carried module is found under its dotted name and run when it is first imported, as Python does: modules may import
  each other in a circle.  A name that has modules below it is a package, with a source or without.
- linecache gets every source (mtime None: checkcache never drops it, whatever its size), so that inspect.getsource,
  torch.compile, Triton and tracebacks see them.  The excepthook is there because Python before 3.13 prints uncaught
  errors from the file on disk; it leaves out the frames up to the first of the loader that runs a source, where there
  is one: a script may call the hook with a traceback of its own.
"""

from packager.script.capitals import MARK

FOLDED = f"""\
def S(S=S):
 import linecache,re,sys,traceback;S=[re.sub('{MARK}(\\\\w+)',lambda A:A[1].upper(),A)for A in S]
"""
PLAIN = """\
def S(S=S):
 import linecache,sys,traceback
"""
HOOK = """\
 def H(A,B,C):
  D=C
  while D and D.tb_frame.f_code!=K:D=D.tb_next
  traceback.print_exception(A,B,D.tb_next if D else C)
 if __name__=='__main__':sys.excepthook=H
"""
ALONE = f"""\
 D=globals();D.pop('c',D.pop('S'));A=S[1];B=__file__;linecache.cache[B]=1,None,A.splitlines(1),B
 K=sys._getframe().f_code
{HOOK}\
 exec(compile(A,B,'exec'),D)
S()
"""
WITH_MODULES = f"""\
 class D:
  create_module=lambda A:None
  exec_module=lambda A:E(F.get(A.__name__,''),__file__+':'+A.__name__,A.__dict__)
  def find_spec(A,*C):
   B=any(B.startswith(A+'.')for B in F)
   if B or A in F:return type(sys.__spec__)(A,D,is_package=B)
 def E(A,B,C):C['__file__']=B;linecache.cache[B]=1,None,A.splitlines(1),B;exec(compile(A,B,'exec'),C)
 F=dict(zip(S[1::2],S[2::2]));sys.meta_path.insert(0,D);G=globals();G.pop('c',G.pop('S'))
 K=E.__code__
{HOOK}\
 E(S[-1],__file__,G)
S()
"""


def loader(*, modules: bool, folded: bool) -> str:
    """The text for a script with or without modules, and with capitals folded or not."""
    return (FOLDED if folded else PLAIN) + (WITH_MODULES if modules else ALONE)
